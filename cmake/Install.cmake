# `cmake --install`: the headers, and a package for find_package(ebb [COMPONENTS host cuda]).

include(CMakePackageConfigHelpers)
set(ebb_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ebb)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ebb DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")
install(TARGETS ebb EXPORT ebbTargets)
install(EXPORT ebbTargets NAMESPACE ebb:: DESTINATION ${ebb_package_dir})

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/ebbConfig.cmake.in ${PROJECT_BINARY_DIR}/ebbConfig.cmake
                              INSTALL_DESTINATION ${ebb_package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ebbConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/ebbConfig.cmake ${PROJECT_BINARY_DIR}/ebbConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/ebbBackends.cmake
        DESTINATION ${ebb_package_dir})
