//===- TestPlan.h - Reading plans in tests ----------------------*- C++ -*-===//
#ifndef DSHARD_TEST_PLAN_TESTPLAN_H
#define DSHARD_TEST_PLAN_TESTPLAN_H

#include "HandBuiltPlan.h"
#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/PlanVerifier.h"

#include <memory>
#include <string>

namespace dshard::test {

/// The reader's or the verifier's error for a builder's plan; "" for none.
inline std::string readerError(plan::Builder &builder) {
  return plan::Reader::fromBytes(builder.finish(), "plan").status().message();
}

/// Live ranges are recomputed, unless `edit` changes the plan after that.
inline std::string verifierError(plan::Builder &builder) {
  auto reader = plan::Reader::fromBytes(builder.finish(), "plan");
  if (!reader)
    return "reader: " + reader.status().message();
  return plan::verifyPlan((*reader)->plan()).message();
}

} // namespace dshard::test

#endif // DSHARD_TEST_PLAN_TESTPLAN_H
