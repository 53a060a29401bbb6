#include "ebb/offload/module_index.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace {

constexpr std::size_t none = ebb::ModuleIndex::none;
char objects[8];
ebb::ModuleId id(std::size_t number, const void* type = nullptr) { return {&objects[number], type}; }

ebb::Component component(const char* name, ebb::ModuleId root, std::vector<ebb::Unit> units) {
  return {.name = name, .units = std::move(units), .root = root};
}

}  // namespace

TEST_CASE("units and roots are found, also when they are one module or share an address") {
  const char type = 0;
  const std::vector<ebb::Component> components{
      component("a", id(0), {{"a.0", 0, 256, {id(0, &type), id(1)}}, {"a.1", 256, 256, {id(2)}}}),
      component("b", id(3), {{"b", 0, 256, {id(3)}}}), component("c", id(4), {{"c", 0, 0, {id(5)}}})};
  const std::vector<std::size_t> numbers{0, none, 1, none};
  const ebb::ModuleIndex index(components, numbers);
  REQUIRE(index.find(id(0, &type)));
  CHECK(index.find(id(0, &type))->unit == 0);
  CHECK(index.find(id(0, &type))->component == none);
  CHECK(index.find(id(0))->unit == none);
  CHECK(index.find(id(0))->component == 0);
  CHECK(index.find(id(1))->unit == 0);
  CHECK_FALSE(index.find(id(2)));  // moves nothing
  CHECK(index.find(id(3))->unit == 1);
  CHECK(index.find(id(3))->component == 1);
  CHECK_FALSE(index.find(id(4)));  // of a component that moves nothing
  CHECK_FALSE(index.find(id(5)));
  CHECK_FALSE(index.find(id(6)));
  CHECK_FALSE(ebb::ModuleIndex().find(id(0)));
}

TEST_CASE("a module in two units and a model in two components are refused, moving or not") {
  const std::vector<std::size_t> numbers{none, none};
  const std::vector<ebb::Component> twice{component("a", {}, {{"x", 0, 0, {id(1)}}, {"y", 0, 0, {id(1)}}})};
  CHECK_THROWS_WITH_AS(ebb::ModuleIndex(twice, numbers),
                       "offload: one module belongs to two units (a x and a y); a module can be offloaded only once",
                       ebb::ConfigError);
  const std::vector<ebb::Component> same{component("a", id(0), {{"x", 0, 0, {id(1)}}}),
                                         component("b", id(0), {{"y", 0, 0, {id(2)}}})};
  CHECK_THROWS_WITH_AS(ebb::ModuleIndex(same, numbers), "offload: components a and b are the same model",
                       ebb::ConfigError);
}
