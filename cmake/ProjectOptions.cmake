# ebb_project_options: how this repository's own executables are compiled. Nothing of it reaches a consumer.

set(CMAKE_CXX_EXTENSIONS OFF)

add_library(ebb_project_options INTERFACE)
set(cxx_warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow $<$<BOOL:${EBB_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms of GCC 12: about its own AVX-512 header (bug 105593) and about inlined std::string (105651, 107852).
  list(APPEND cxx_warnings -Wno-uninitialized -Wno-maybe-uninitialized -Wno-restrict -Wno-array-bounds
                           -Wno-stringop-overflow)
endif()
target_compile_options(ebb_project_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_warnings}>")
if(EBB_NATIVE)
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-march=native EBB_HAS_MARCH_NATIVE)
  if(EBB_HAS_MARCH_NATIVE)
    target_compile_options(ebb_project_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
  endif()
endif()
