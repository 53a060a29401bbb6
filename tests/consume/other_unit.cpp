#ifdef CONSUME_HOST
#include "ebb/host.hpp"
#else
#include "ebb/ebb.hpp"
#endif

std::size_t bytes_in_other_unit() { return ebb::QuantizedTensor<ebb::NF4>(ebb::Shape{64, 64}).bytes(); }
