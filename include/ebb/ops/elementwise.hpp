#pragma once

#include <cstddef>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// Contract of map(ctx, x, stage, y): y = stage(x), computed in float32, x and y of any element types; y may be x where
/// the types are the same. `Identity` converts. @throws ShapeError
///
/// Contract of add(ctx, a, b, y): equal extents, y may be an operand. @throws ShapeError
template <class X, class Y>
void check_same_extents(const char* op, const X& x, const Y& y) {
  if (x.rows != y.rows || x.columns != y.columns)
    throw ShapeError(concat(op, ": expected equal matrices, found [", x.rows, ", ", x.columns, "] and [", y.rows, ", ",
                            y.columns, "]"));
}

/// Contract of add_scaled(ctx, x, factor, y): y = y + factor[0] * x, the product rounded to the element type before the
/// sum, as PyTorch does. `factor` is one number in the context's memory, so that it may change between replays of a
/// captured step. @throws ShapeError
///
/// Contract of guide(ctx, conditional, unconditional, scale, y): classifier-free guidance,
/// y = unconditional + scale * (conditional - unconditional), each operation rounded; y may be an operand.
/// @throws ShapeError
template <class X, class Y>
void check_add_scaled(const X& x, std::size_t factors, const Y& y) {
  require(factors == 1, "add_scaled: expected one factor");
  check_same_extents("add_scaled", x, y);
}

/// Contract of linear_combination(ctx, inputs, coefficients, y): y = the sum of coefficients[i] * inputs[i], from left
/// to right in float32, rounded once; inputs of coefficient 0 count as well. `coefficients` [inputs] are in the
/// context's memory, so that they may change between replays of a captured step; y may be an input. @throws ShapeError
template <class Inputs, class Y>
void check_linear_combination(const Inputs& inputs, std::size_t coefficients, const Y& y) {
  if (coefficients != inputs.size())
    throw ShapeError(concat("linear_combination: expected ", inputs.size(), " coefficients, found ", coefficients));
  for (const auto& input : inputs) check_same_extents("linear_combination", input, y);
}

/// Contract of timestep_embedding(ctx, t, y), t in host memory: y [t.size(), width], width even: cosines of t *
/// exp(-ln(10000) i / half) in the first half, sines in the second (diffusers' Timesteps with flip_sin_to_cos, shift
/// 0). @throws ShapeError
template <class Y>
void check_timestep_embedding(std::size_t timesteps, const Y& y) {
  if (y.rows != timesteps || y.columns % 2 != 0)
    throw ShapeError(
        concat("timestep_embedding: expected y [", timesteps, ", even], found [", y.rows, ", ", y.columns, "]"));
}

/// Contract of gather_rows(ctx, table, ids, y): y[i] = table[ids[i]]; table [rows, width] in home memory, ids in host
/// memory, y [ids, width].
/// @throws ShapeError, also for an id outside the table
template <class Ids, class Y>
void check_gather(const Shape& table, const Ids& ids, const Y& y) {
  if (table.rank() != 2 || y.rows != ids.size() || y.columns != table[1])
    throw ShapeError(concat("gather_rows: expected y [", ids.size(), ", width] of a table [rows, width], found y [",
                            y.rows, ", ", y.columns, "], table ", table.text()));
  for (const auto id : ids)
    if (id < 0 || static_cast<std::size_t>(id) >= table[0])
      throw ShapeError(concat("gather_rows: id ", id, " is outside a table of ", table[0],
                              " rows: tokenizer and model do not belong together"));
}

}  // namespace ebb
