# The backend targets, described once for the build tree and for the installed package.
#   ebb::host   the CPU backend: Eigen, OpenMP      ebb::cuda   the CUDA kernels: CUDA Toolkit
# A target is made where its dependencies are found. `ebb_target_scope` is GLOBAL or empty.

# Eigen 5 calls itself incompatible with a request for 3.4, so the version is compared here.
find_package(Eigen3 QUIET NO_MODULE)
find_package(OpenMP QUIET COMPONENTS CXX)
if(NOT TARGET ebb::host AND TARGET Eigen3::Eigen AND TARGET OpenMP::OpenMP_CXX
   AND NOT (Eigen3_VERSION AND Eigen3_VERSION VERSION_LESS 3.4))
  add_library(ebb::host INTERFACE IMPORTED ${ebb_target_scope})
  target_link_libraries(ebb::host INTERFACE ebb::ebb Eigen3::Eigen OpenMP::OpenMP_CXX)
  # OpenMP_CXX gives its flag to C++ alone; a .cu that includes ebb/host needs it too, see ebb/host/threads.hpp.
  target_compile_options(ebb::host INTERFACE $<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-Xcompiler=${OpenMP_CXX_FLAGS}>)
endif()

find_package(CUDAToolkit 12.5 QUIET)  # the first with cudaGetDriverEntryPointByVersion
if(NOT TARGET ebb::cuda AND CUDAToolkit_FOUND AND TARGET CUDA::cudart AND TARGET CUDA::cublasLt)
  add_library(ebb::cuda INTERFACE IMPORTED ${ebb_target_scope})
  target_link_libraries(ebb::cuda INTERFACE ebb::ebb CUDA::cudart CUDA::cublasLt)
  # The formats are constexpr functions that device code calls. CMake knows nvcc's C++20 only since 3.26, so the flag is
  # given here, unless a target sets CUDA_STANDARD.
  set(nvcc $<COMPILE_LANG_AND_ID:CUDA,NVIDIA>)
  target_compile_options(ebb::cuda INTERFACE $<${nvcc}:--expt-relaxed-constexpr>
                         $<$<AND:${nvcc},$<NOT:$<BOOL:$<TARGET_PROPERTY:CUDA_STANDARD>>>>:-std=c++20>)
endif()
