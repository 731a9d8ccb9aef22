//===- CommunicatorSuite.h - What runs the communicators' suite -*- C++ -*-===//
//
// The tests are those of CommunicatorTest.cpp; a backend is one value of the
// parameter, given where the backend is at hand.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TEST_RUNTIME_COMMUNICATORSUITE_H
#define DSHARD_TEST_RUNTIME_COMMUNICATORSUITE_H

#include "TestTensors.h"
#include "dshard/Runtime/Communicator.h"

#include <functional>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace dshard::test {

/// By group: its instances, each the ranks in order.
using Groups = std::vector<std::vector<std::vector<uint32_t>>>;
using RankBody = std::function<Status(uint32_t, Communicator)>;

struct CommunicatorBackend {
  std::string name;
  uint32_t ranks;
  Groups groups; // the first one is the whole
  /// Runs the body on all ranks, with operands in the host's memory.
  std::function<std::vector<Status>(const CommunicatorBackend &,
                                    const RankBody &)>
      run;
  /// Why it cannot run here, or "".
  std::function<std::string(const CommunicatorBackend &)> missing;
  bool reducesShorts = true; // i16 and u16
  bool hasMailbox = true;    // a send never waits for its receiver
  double tolerance = 1;      // times the rounding of one store
};

inline std::ostream &operator<<(std::ostream &out,
                                const CommunicatorBackend &backend) {
  return out << backend.name;
}

class Collectives : public testing::TestWithParam<CommunicatorBackend> {
protected:
  void SetUp() override {
    std::string why =
        GetParam().missing ? GetParam().missing(GetParam()) : std::string();
    if (!why.empty())
      GTEST_SKIP() << why;
  }

  const Groups &groups() const { return GetParam().groups; }
  uint32_t ranks() const { return GetParam().ranks; }
  bool reduces(plan::DataType type) const {
    return GetParam().reducesShorts ||
           (type != plan::DataType::i16 && type != plan::DataType::u16);
  }

  void onAllRanks(const RankBody &body) {
    for (const Status &status : GetParam().run(GetParam(), body))
      EXPECT_TRUE(status.ok()) << status.message();
  }

  /// Equal up to a rounding to the type; `size` bounds what was summed.
  void expectNear(double got, double wanted, plan::DataType type,
                  double size) const {
    double tolerance = type == plan::DataType::f64 ? 1e-12
                       : plan::isFloat(type)       ? epsilon(type)
                                                   : 0;
    EXPECT_NEAR(got, wanted, GetParam().tolerance * tolerance * (1 + size))
        << plan::toString(type);
  }
};

} // namespace dshard::test

#endif // DSHARD_TEST_RUNTIME_COMMUNICATORSUITE_H
