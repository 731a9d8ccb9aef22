//===- PlanReport.h - What is in a plan, for people and programs *- C++ -*-===//
//
// The texts of `dshard-plan stat` and `explain` and of the Python package. They
// end in a newline. Any plan can be read on any machine.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_PLANREPORT_H
#define DSHARD_PLAN_PLANREPORT_H

#include "dshard/Plan/PlanReader.h"

#include <string>

namespace dshard::plan {

/// Memory in bytes (of the rank that needs most, and of all), instructions by
/// kind, bytes of collectives by kind and axes.
std::string statisticsText(const Reader &reader);
/// The same as one JSON object.
std::string statisticsJson(const Reader &reader);
/// One line per collective: reason, axes, bytes per rank, source node.
std::string explainCollectives(const Reader &reader);

} // namespace dshard::plan

#endif // DSHARD_PLAN_PLANREPORT_H
