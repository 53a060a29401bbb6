# ebb_project_options: how this repository's own executables are compiled. Nothing of it reaches a consumer.

add_library(ebb_project_options INTERFACE)
set(cxx_warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow $<$<BOOL:${EBB_WERROR}>:-Werror>)
target_compile_options(ebb_project_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_warnings}>")
if(EBB_NATIVE)
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-march=native EBB_HAS_MARCH_NATIVE)
  if(EBB_HAS_MARCH_NATIVE)
    target_compile_options(ebb_project_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
  endif()
endif()
