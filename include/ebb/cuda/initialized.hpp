#pragma once

#include <cuda_runtime_api.h>
#if __has_include(<nvtx3/nvToolsExtMemCudaRt.h>)  // not in every toolkit
#include <nvtx3/nvToolsExtMemCudaRt.h>
#endif

#include <cstddef>

namespace ebb::cuda {

/// Tells compute-sanitizer's initcheck, under `--nvtx yes`, that work issued to `stream` writes these bytes. It is for
/// kernels of libraries, which store through TMA on Hopper: that tool does not see all such stores and would take what
/// reads them for an error (release notes of Compute Sanitizer: known limitations, and the additions of 2025.4). Where
/// no tool listens nothing happens.
inline void mark_initialized(const void* data, std::size_t bytes, cudaStream_t stream) {
#ifdef NVTX_MEM_CUDART_CONTENTS_V1
  static const nvtxDomainHandle_t domain = nvtxDomainCreateA("ebb");
  const nvtxMemVirtualRangeDesc_t range{bytes, data};
  nvtxMemMarkInitializedBatch_t batch{};
  batch.extCompatID = NVTX_EXT_COMPATID_MEM;
  batch.structSize = sizeof(batch);
  batch.regionType = NVTX_MEM_TYPE_VIRTUAL_ADDRESS;
  batch.regionDescCount = 1;
  batch.regionDescElementSize = sizeof(range);
  batch.regionDescElements = &range;
  nvtxMemCudaMarkInitialized(domain, stream, 0, &batch);
#else
  (void)data;
  (void)bytes;
  (void)stream;
#endif
}

}  // namespace ebb::cuda
