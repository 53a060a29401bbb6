# Every header compiles alone, and twice: a generated translation unit for each one that the glob finds.
# Headers outside host/ see neither Eigen nor OpenMP.

file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include
     ${PROJECT_SOURCE_DIR}/include/ebb/*.hpp ${PROJECT_SOURCE_DIR}/include/ebb/*.cuh)
foreach(header IN LISTS headers)
  if(header MATCHES "\\.cuh$")
    set(group cuda)
    set(extension cu)
  elseif(header MATCHES "^ebb/cuda/")
    set(group cuda)
    set(extension cpp)
  elseif(header MATCHES "^ebb/host[/.]")
    set(group host)
    set(extension cpp)
  else()
    set(group ebb)
    set(extension cpp)
  endif()
  set(unit ${CMAKE_CURRENT_BINARY_DIR}/headers/${header}.${extension})
  file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
  list(APPEND header_units_${group} ${unit})
endforeach()

foreach(group IN ITEMS ebb host cuda)
  if(NOT header_units_${group} OR (group STREQUAL cuda AND NOT EBB_CUDA))
    continue()
  endif()
  add_library(test_headers_${group} OBJECT ${header_units_${group}})
  target_link_libraries(test_headers_${group} PRIVATE ebb::${group} ebb_project_options)
  # A project that adds ebb as a subdirectory compiles headers with its own warnings: one more than here is usual.
  target_compile_options(test_headers_${group} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-O0;-Wsign-conversion>")
  if(group STREQUAL cuda)
    # nvcc hands GCC rewritten sources, of which GCC may warn where it does not of ours.
    set(nvcc $<COMPILE_LANG_AND_ID:CUDA,NVIDIA>)
    target_compile_options(test_headers_cuda PRIVATE $<${nvcc}:-Xcompiler=-Wall$<COMMA>-Wextra$<COMMA>-Wconversion>
                           $<$<AND:${nvcc},$<BOOL:${EBB_WERROR}>>:--Werror=all-warnings>)
    add_dependencies(cuda_targets test_headers_cuda)
  endif()
endforeach()
