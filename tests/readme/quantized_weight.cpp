// README.md shows what follows.
#include "ebb/memory/storage.hpp"
#include "ebb/tensor/quantize.hpp"

void example(std::span<const float> weight) {  // 3072 x 3072, row by row
  ebb::QuantizedTensor<ebb::NF4> tensor(ebb::Shape{3072, 3072}, {.block_size = 64});
  ebb::AlignedBuffer segment(tensor.bytes());  // codes, scales, nested state: one piece, so moving it is one copy
  ebb::quantize(weight, tensor, segment.bytes(), "weight");
  tensor.bind(segment.data());  // wherever the bytes are now: host, pinned, device
}
