// expect: QuantFormat
#include "ebb/format/nf4.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

struct NotAFormat {
  static constexpr int bits = 3;
};

#ifdef EBB_COMPILES
using Format = ebb::NF4;
#else
using Format = NotAFormat;
#endif

ebb::QuantizedTensor<Format> tensor;
