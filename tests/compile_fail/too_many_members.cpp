// expect: at most 64 members
#include <tuple>

#include "ebb/module/members.hpp"

struct Crowd {
#ifndef EBB_COMPILES
  ebb::Vector forgotten[64];  // counted one by one
#endif
  ebb::Vector weight;

  static consteval auto members() { return std::tuple{ebb::field{"weight", &Crowd::weight}}; }
};

template <ebb::Module Model>
void load(Model& model);

void use(Crowd& crowd) { load(crowd); }
