# Turns the CUDA language on. The compiler is nvcc of the toolkit, which need not be on the PATH.

if(NOT TARGET ebb::cuda)
  message(FATAL_ERROR "EBB_CUDA: no CUDA Toolkit 12.5 or later found; set CUDAToolkit_ROOT to where one is")
endif()
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90a CACHE STRING "GPU architectures to compile for")
endif()
enable_language(CUDA)

# ptxas says which kernel spills registers. With EBB_WERROR that, and any other warning of its, is an error.
set(ptxas_options --warn-on-spills$<$<BOOL:${EBB_WERROR}>:,--warning-as-error>)
add_compile_options("$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-Xptxas=${ptxas_options}>")

# Everything that nvcc compiles: `cmake --build ... --target cuda_targets`.
add_custom_target(cuda_targets)
