//===- TestTensors.h - Random tensors of any type for the tests -*- C++ -*-===//
#ifndef DSHARD_TEST_RUNTIME_TESTTENSORS_H
#define DSHARD_TEST_RUNTIME_TESTTENSORS_H

#include "dshard/Runtime/Cpu/Convert.h"

#include <cmath>
#include <random>
#include <string>
#include <vector>

namespace dshard::test {

/// A typed array whose values are exactly representable: read them as doubles.
struct Array {
  Array(plan::DataType type, int64_t count)
      : type(type), count(count), bytes(count * cpu::elementBytes(type) + 64) {}
  plan::DataType type;
  int64_t count;
  std::vector<uint8_t> bytes;
  void *data() { return bytes.data(); }
  const void *data() const { return bytes.data(); }
  double operator[](int64_t i) const {
    return cpu::elementAsDouble(bytes.data(), type, i);
  }
  void set(int64_t i, double value) {
    cpu::storeDouble(bytes.data(), type, i, value);
  }
};

inline Array randomArray(plan::DataType type, int64_t count, uint32_t seed,
                         double scale = 1) {
  Array array(type, count);
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(-scale, scale);
  for (int64_t i = 0; i < count; ++i)
    array.set(i, uniform(generator));
  return array;
}

/// Relative rounding error of one store.
inline double epsilon(plan::DataType type) {
  return type == plan::DataType::bf16  ? 1.0 / 255
         : type == plan::DataType::f16 ? 1.0 / 2040
                                       : 2e-6;
}

} // namespace dshard::test

#endif // DSHARD_TEST_RUNTIME_TESTTENSORS_H
