// expect: tuple_size_v.*arity
#include <tuple>

#include "ebb/module/members.hpp"

struct Projection {
  ebb::AnyTensor weight;
  ebb::Vector bias;

  static consteval auto members() {
#ifdef EBB_COMPILES
    return std::tuple{ebb::field{"weight", &Projection::weight}, ebb::field{"bias", &Projection::bias}};
#else
    return std::tuple{ebb::field{"weight", &Projection::weight}};
#endif
  }
};

template <ebb::Module Model>
void load(Model& model);

void use(Projection& projection) { load(projection); }
