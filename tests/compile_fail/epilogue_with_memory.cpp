// expect: Epilogue
#include <cstddef>
#include <vector>

#include "ebb/epilogue/epilogue.hpp"

struct PerColumn {
#ifdef EBB_COMPILES
  const float* offsets = nullptr;
#else
  std::vector<float> offsets;  // no device can copy a stage that owns memory
#endif
  float operator()(float value, std::size_t, std::size_t column) const { return value + offsets[column]; }
};

auto stages = ebb::chain(PerColumn{}, ebb::Identity{});
