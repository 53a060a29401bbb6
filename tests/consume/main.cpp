// A consumer of ebb: two translation units, so that a function of the library that is not inline fails to link.
#include <cstdio>
#ifdef CONSUME_HOST
#include "ebb/host.hpp"
#else
#include "ebb/ebb.hpp"
#endif

std::size_t bytes_in_other_unit();

int main() {
  const ebb::QuantizedTensor<ebb::NF4> tensor(ebb::Shape{64, 64});
  std::printf("%zu bytes\n", tensor.bytes());
  return tensor.bytes() == bytes_in_other_unit() ? 0 : 1;
}
