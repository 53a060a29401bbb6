#include "ebb/cuda/tuned.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "ebb/cuda/blas.hpp"
#include "random.hpp"

using namespace ebb;
using cuda::TunedAlgorithms;

TEST_CASE("tuned algorithms survive as text, one environment apart from another") {
  TunedAlgorithms store;
  CHECK(!store.changed());
  const TunedAlgorithms::Choice choice{{1, 2, 3, ~std::uint64_t{0}, 5, 6, 7, 8}, 12.5};
  store.keep("GPU A", "1 2 3", choice);
  store.keep("GPU B", "1 2 3", {{9}, 1e-3});
  CHECK(store.changed());
  const auto again = TunedAlgorithms::parse(store.text(), "file");
  CHECK(!again.changed());
  CHECK(again.size() == 2);
  CHECK(again.text() == store.text());
  REQUIRE(again.find("GPU A", "1 2 3"));
  CHECK(again.find("GPU A", "1 2 3")->algorithm == choice.algorithm);
  CHECK(again.find("GPU A", "1 2 3")->microseconds == 12.5);
  CHECK(!again.find("GPU A", "1 2 4"));
  CHECK(!again.find("GPU C", "1 2 3"));
  CHECK_THROWS_AS(store.keep("a\tb", "", choice), ShapeError);
}

TEST_CASE("damaged files of tuned algorithms are errors that name the line") {
  TunedAlgorithms store;
  store.keep("GPU", "1", {{1}, 2.0});
  const std::string text = store.text();
  CHECK_THROWS_WITH_AS(TunedAlgorithms::parse("", "some/file"), doctest::Contains("some/file:1"), FileError);
  CHECK_THROWS_AS(TunedAlgorithms::parse("something else\n", "file"), FileError);
  for (std::size_t length = text.find('\n') + 2; length + 2 < text.size(); ++length)
    CHECK_THROWS_WITH_AS(TunedAlgorithms::parse(text.substr(0, length), "file"), doctest::Contains("file:2"),
                         FileError);
  CHECK_THROWS_AS(TunedAlgorithms::parse(text + "GPU\t2\t1 2 3 4 5 6 7 8 9 10\n", "file"), FileError);
}

TEST_CASE_TEMPLATE("a tuned product is the product, and a stored choice gives the same bits", T, float, bfloat16,
                   float16) {
  constexpr std::size_t m = 70, n = 96, k = 128;
  const auto x = random_values<T>(m * k, 1), weight = random_values<T>(n * k, 2), residual = random_values<T>(m * n, 3);
  const auto device_x = on_device(x), device_weight = on_device(weight), device_residual = on_device(residual);
  const auto multiply = [&](TunedAlgorithms& store, bool in_place) {
    cuda::Blas blas;
    blas.tune(store);
    auto y = on_device(residual);
    REQUIRE(blas.multiply(Matrix<const T>(device_x.data(), m, k), Matrix<const T>(device_weight.data(), n, k),
                          cuda::BlasEpilogue::none, static_cast<const T*>(nullptr),
                          in_place ? y.data() : device_residual.data(), Matrix<T>(y.data(), m, n), nullptr));
    cuda::check(cudaDeviceSynchronize());
    return on_host(y);
  };
  std::vector<double> expected;
  for (std::size_t row = 0; row < m; ++row)
    for (std::size_t column = 0; column < n; ++column) {
      double sum = static_cast<double>(static_cast<float>(residual[row * n + column]));
      for (std::size_t i = 0; i < k; ++i)
        sum += static_cast<double>(static_cast<float>(x[row * k + i])) *
               static_cast<double>(static_cast<float>(weight[column * k + i]));
      expected.push_back(sum);
    }
  // cuBLASLt may add a residual in another order where it is y; each of the two has to repeat itself.
  for (const bool in_place : {false, true}) {
    CAPTURE(in_place);
    TunedAlgorithms store;
    const auto first = multiply(store, in_place);
    CHECK(relative_error(first, expected) < largest_error<T>);  // trials have not added to a residual that is y
    CHECK(store.size() == 1);
    auto stored = TunedAlgorithms::parse(store.text(), "text");
    const auto second = multiply(stored, in_place);
    CHECK(relative_error(second, expected) < largest_error<T>);
    CHECK(std::memcmp(first.data(), second.data(), first.size() * sizeof(T)) == 0);
    CHECK(!stored.changed());
  }
}
