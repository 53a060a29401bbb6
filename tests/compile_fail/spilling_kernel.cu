// More values live at once than a block of 1024 threads has registers for: it must not build.
__global__ void __launch_bounds__(1024) spilling_kernel(const float* in, float* out) {
  float values[128];
#pragma unroll
  for (int i = 0; i < 128; ++i) values[i] = in[i * 1024 + threadIdx.x];
#pragma unroll
  for (int i = 0; i < 128; ++i) out[i * 1024 + threadIdx.x] = values[i] * values[(i + 61) % 128];
}
