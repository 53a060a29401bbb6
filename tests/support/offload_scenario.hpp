#pragma once
// Pipelines of made-up models under an OffloadGroup, on whatever device can tell what it computed with.

#include <doctest/doctest.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/memory/backend.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/offload/component.hpp"
#include "ebb/offload/group.hpp"
#include "ebb/offload/plan.hpp"
#include "ebb/offload/policy.hpp"

namespace ebb::test {

/// Stands for module objects: each is only an address.
struct Modules {
  std::unique_ptr<std::byte[]> objects{new std::byte[1 << 12]};
  std::size_t used = 0;
  ModuleId make() { return {objects.get() + used++, this}; }
};

struct Model {
  Component component;
  AlignedBuffer home;
};

inline constexpr std::size_t unknown_offset = 256;  // each model keeps a table at home, before its units

inline Model make_model(const std::string& name, const std::vector<std::size_t>& granules, Modules& modules,
                        std::size_t modules_per_unit = 1) {
  Model model;
  model.component.name = name;
  model.component.root = modules.make();
  std::size_t offset = unknown_offset;
  for (std::size_t i = 0; i < granules.size(); ++i) {
    Unit unit{.name = "unit" + std::to_string(i), .begin = offset, .end = offset + granules[i] * 256, .modules = {}};
    for (std::size_t m = 0; m < modules_per_unit; ++m) unit.modules.push_back(modules.make());
    offset = unit.end;
    model.component.units.push_back(unit);
  }
  model.home = AlignedBuffer(offset);
  model.component.home = model.home.data();
  return model;
}

inline std::vector<Component> components_of(const std::vector<Model>& models) {
  std::vector<Component> result;
  for (const Model& model : models) result.push_back(model.component);
  return result;
}

/// A device on which pipelines are tested: a Backend that is made of a seed, its arena and a fault that is planted;
/// that can be told of work, which reads a unit in the arena and expects what lies at home; and that says what went
/// wrong.
template <class Candidate>
concept TestedDevice = Backend<Candidate> &&
                       requires(Candidate& device, std::byte* arena, std::span<std::byte> home, const std::byte* place,
                                typename Candidate::Arena memory, typename Candidate::Fault fault) {
                         Candidate(std::uint64_t{}, arena, std::size_t{}, fault);
                         { memory.bytes() } -> std::convertible_to<std::span<std::byte>>;
                         device.adopt(home);  // home memory, before any copy from it; it outlives the device
                         device.compute(place, place, std::size_t{});
                         device.idle();
                         { device.violation() } -> std::convertible_to<std::string>;
                         { device.waits(Candidate::compute_stream) } -> std::convertible_to<std::size_t>;
                         {
                           device.host_blocked
                         } -> std::convertible_to<std::size_t>;  // how often the issuing thread had to wait
                         { device.fail_next_copy } -> std::convertible_to<bool>;
                       };

/// A pipeline on a device.
template <class Policy, TestedDevice Device>
struct Run {
  std::vector<Component> components;
  Plan plan;
  typename Device::Arena arena;
  Device device;
  OffloadGroup<Policy, Device> group;

  Run(const Policy& policy, std::vector<Component> pipeline, std::uint64_t seed, typename Device::Fault fault = {})
      : components(std::move(pipeline)),
        plan(decltype(group)::plan(policy, components)),
        arena(plan.arena_bytes),
        device(seed, arena.data(), plan.arena_bytes, fault),
        group(policy, device, Device::compute_stream, Device::copy_stream, components, arena.bytes()) {}

  void work(std::size_t component, std::size_t unit) {
    const Unit& what = components[component].units[unit];
    device.compute(group.address(component, what.begin), components[component].home + what.begin, what.bytes());
  }
  void call(std::size_t component, std::size_t unit, std::size_t module = 0) {
    const auto lease = group.enter(components[component].units[unit].modules[module]);
    work(component, unit);
  }
  void pass(std::size_t component, const std::vector<std::size_t>& order) {
    const auto root = group.enter(components[component].root);
    for (const std::size_t unit : order) call(component, unit);
  }
  std::size_t misses() const { return group.statistics().misses; }
};

inline std::vector<std::size_t> upto(std::size_t count) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < count; ++i) order.push_back(i);
  return order;
}

inline const std::vector<OffloadSpec> policies{OffloadSpec(NoOffload{}),        OffloadSpec(ModelOffload{}),
                                               OffloadSpec(BlockOffload{1, 0}), OffloadSpec(BlockOffload{1, 1}),
                                               OffloadSpec(LeafOffload{2}),     OffloadSpec(LeafOffload{3}),
                                               OffloadSpec(LeafOffload{100})};

/// What one random scenario did.
struct Outcome {
  std::string violation;
  std::size_t compute_waits = 0, copy_waits = 0;
};

/// Builds a random pipeline and runs it through random passes: modules left out, repeated and reordered, several
/// components, roots that are not announced, second modules of a unit, fused calls with two leases, exceptions.
template <TestedDevice Device>
Outcome run_random(std::uint64_t seed, typename Device::Fault fault = {}) {
  std::mt19937_64 random(seed);
  const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  Modules modules;
  std::vector<Model> models;
  const std::size_t count = 1 + below(3);
  const bool by_model = below(6) == 0;
  std::size_t total = 0;
  for (std::size_t c = 0; c < count; ++c) {
    std::vector<std::size_t> granules(by_model ? 1 : 1 + below(9));
    for (std::size_t& each : granules) each = below(5) == 0 ? 0 : below(4) == 0 ? 20 : 1 + below(6);
    if (below(4) == 0) granules[below(granules.size())] = 60;
    for (const std::size_t each : granules) total += each * 256;
    models.push_back(make_model("component" + std::to_string(c), granules, modules, 1 + below(2)));
    if (below(3) == 0) models.back().component.root = {};
  }
  std::vector<Component> components = components_of(models);
  if (count > 1 && below(3) == 0) components[below(count)].residence = Residence::resident;
  OffloadSpec policy = by_model ? OffloadSpec(ModelOffload{}) : policies[below(policies.size())];
  if (below(3) == 0) {
    std::size_t budget = total / 256 * below(300) / 256 * 256;
    policy = OffloadSpec(Budget{budget, below(4)});
    try {
      make_plan(policy, components);
    } catch (const MemoryError&) {
      policy = OffloadSpec(Budget{total + 256, 1});
    }
  }

  Outcome outcome;
  Run<OffloadSpec, Device> run(policy, components, seed * 3 + 1, fault);
  for (const Model& model : models) run.device.adopt(model.home.bytes());
  CHECK(run.plan.arena_bytes <= run.plan.bound_bytes + (policy.settings().level == Level::none ? total : 0));
  const std::size_t blocked_before = run.device.host_blocked;
  for (std::size_t round = 0; round < 2 + below(2); ++round)
    for (std::size_t c = 0; c < count; ++c) {
      const std::size_t units = components[c].units.size();
      std::vector<std::size_t> order = upto(units);
      if (below(3) == 0) std::shuffle(order.begin(), order.end(), random);
      for (std::size_t edits = below(4); edits > 0; --edits) {
        if (below(2) == 0)
          order.insert(order.begin() + static_cast<std::ptrdiff_t>(below(order.size() + 1)), below(units));
        else if (!order.empty())
          order.erase(order.begin() + static_cast<std::ptrdiff_t>(below(order.size())));
      }
      for (std::size_t steps = 1 + below(4); steps > 0; --steps) {
        if (below(5) == 0) run.group.expect_no_more(c);
        try {
          const auto root = run.group.enter(components[c].root);
          for (const std::size_t unit : order) {
            if (below(8) == 0) continue;  // a conditional module that only some passes call
            run.call(c, unit, below(components[c].units[unit].modules.size()));
            if (below(4) == 0) run.device.idle();
            if (below(10) == 0) run.call(below(count), 0);  // another component in between
            if (below(60) == 0) run.device.fail_next_copy = true;
            if (below(6) == 0) {  // two units at once, when they have places apart
              const auto& left = components[c].units[unit];
              const auto& right = components[c].units[(unit + 1) % units];
              try {
                const auto first = run.group.enter(left.modules[0]);
                const auto second = run.group.enter(right.modules[0]);
                run.work(c, unit);
                run.work(c, (unit + 1) % units);
                run.work(c, unit);
              } catch (const MemoryError&) {
              }
            }
          }
        } catch (const FileError&) {  // a failed copy: the next pass starts afresh
        }
      }
    }
  CHECK(run.device.host_blocked == blocked_before);  // only streams wait
  CHECK(run.group.peak_bytes() <= run.plan.arena_bytes);
  run.device.synchronize(Device::compute_stream);
  run.device.synchronize(Device::copy_stream);
  outcome.violation = run.device.violation();
  outcome.compute_waits = run.device.waits(Device::compute_stream);
  outcome.copy_waits = run.device.waits(Device::copy_stream);
  return outcome;
}

}  // namespace ebb::test
