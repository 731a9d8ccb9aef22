//===- PlanReport.cpp - What is in a plan, for people and programs --------===//

#include "dshard/Plan/PlanReport.h"

#include "dshard/Plan/Instructions.h"
#include "dshard/Plan/PlanStatistics.h"
#include "dshard/Plan/RankShare.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Support/Json.h"
#include "dshard/Support/Text.h"

using namespace dshard;

/// "  512 B" or "  24,576 B (24.0 KiB)".
static std::string bytesText(uint64_t bytes) {
  std::string text = formatCount(bytes) + " B";
  if (bytes >= 1024)
    text += " (" + formatBytes(bytes) + ")";
  return text;
}

static std::string padded(std::string text, size_t width) {
  if (text.size() < width)
    text.append(width - text.size(), ' ');
  return text;
}

/// Statistics of the rank that needs the most memory, and what all need.
static plan::PlanStatistics largestRank(const plan::Plan &plan,
                                        uint64_t &allRanks) {
  plan::PlanStatistics largest = plan::planStatistics(plan);
  uint32_t stages = plan::stageRanks(plan);
  uint32_t ranksOfStage = largest.ranks / stages;
  allRanks = 0;
  // pp is the slowest axis, so that a stage's first rank is easily found.
  for (uint32_t stage = 0; stage < stages; ++stage) {
    plan::PlanStatistics statistics =
        plan::planStatistics(plan, stage * ranksOfStage);
    allRanks += ranksOfStage * statistics.peakPerRank(0);
    if (statistics.peakPerRank(0) > largest.peakPerRank(0))
      largest = statistics;
  }
  return largest;
}

std::string plan::statisticsText(const Reader &reader) {
  std::string result;
  auto add = [&](const std::string &text) { result += text; };
  const plan::Plan &plan = reader.plan();
  uint64_t allRanks = 0;
  plan::PlanStatistics statistics = largestRank(plan, allRanks);
  bool isPipeline = plan::stageRanks(plan) > 1;
  std::string largest;
  for (const plan::ProgramStatistics &program : statistics.programs)
    if (largest.empty() && program.arena == statistics.arena)
      largest = program.name;
  auto row = [&](const std::string &name, const std::string &text) {
    add("  " + padded(name, 28) + text + "\n");
  };
  add(reader.name() + ": " + std::to_string(statistics.ranks) + " ranks <" +
      plan::meshText(plan) + ">, target " + plan.target()->str() + ", " +
      std::to_string(plan.programs()->size()) + " programs\n");
  row("plan hash", toString(reader.hash()));
  add(isPipeline ? "memory of the rank that needs most\n"
                 : "memory per rank\n");
  row("arena", bytesText(statistics.arena) +
                   (largest.empty() ? "" : ", needed by '" + largest + "'"));
  row("state", bytesText(statistics.state));
  for (auto &[role, bytes] : statistics.stateByRole)
    row("  " + role, bytesText(bytes));
  if (statistics.messages)
    row("messages on their way", bytesText(statistics.messages));
  row("peak", bytesText(statistics.peakPerRank(0)));
  row("and per worker thread", bytesText(statistics.threadScratch));
  add("memory of all ranks\n");
  row("peak, without threads", bytesText(allRanks));
  row("code, once per process", bytesText(statistics.code));
  for (const plan::ProgramStatistics &program : statistics.programs) {
    uint64_t total = 0;
    std::vector<std::string> kinds;
    for (auto &[kind, count] : program.instructions) {
      total += count;
      kinds.push_back(kind + " " + std::to_string(count));
    }
    add("program '" + program.name + "': " + std::to_string(total) +
        " instructions\n");
    row("arena", bytesText(program.arena));
    row("instructions", join(kinds, ", "));
    for (auto &[key, traffic] : program.collectives)
      row(key.first + " {" + key.second + "}",
          std::to_string(traffic.count) + " x, " + bytesText(traffic.bytes) +
              " of operands per rank");
  }
  return result;
}

std::string plan::statisticsJson(const Reader &reader) {
  const plan::Plan &plan = reader.plan();
  uint64_t allRanks = 0;
  plan::PlanStatistics statistics = largestRank(plan, allRanks);
  JsonWriter json;
  json.beginObject();
  json.key("plan").value(reader.name());
  json.key("hash").value(toString(reader.hash()));
  json.key("target").value(plan.target()->str());
  json.key("ranks").value(statistics.ranks);
  json.key("mesh").beginObject();
  for (const plan::Axis *axis : *plan.mesh())
    json.key(reader.string(axis->name())).value(axis->size());
  json.endObject();
  json.key("memory_per_rank").beginObject();
  json.key("arena").value(statistics.arena);
  json.key("state").value(statistics.state);
  json.key("messages").value(statistics.messages);
  json.key("peak").value(statistics.peakPerRank(0));
  json.key("thread_scratch_per_thread").value(statistics.threadScratch);
  json.endObject();
  json.key("state_by_role").beginObject();
  for (auto &[role, bytes] : statistics.stateByRole)
    json.key(role).value(bytes);
  json.endObject();
  json.key("peak_all_ranks").value(allRanks);
  json.key("code_per_process").value(statistics.code);
  json.key("programs").beginArray();
  for (const plan::ProgramStatistics &program : statistics.programs) {
    json.beginObject();
    json.key("name").value(program.name);
    json.key("arena").value(program.arena);
    json.key("thread_scratch_per_thread").value(program.threadScratch);
    json.key("instructions").beginObject();
    for (auto &[kind, count] : program.instructions)
      json.key(kind).value(count);
    json.endObject();
    json.key("collectives").beginArray();
    for (auto &[key, traffic] : program.collectives)
      json.beginObject()
          .key("kind")
          .value(key.first)
          .key("axes")
          .value(key.second)
          .key("count")
          .value(traffic.count)
          .key("bytes")
          .value(traffic.bytes)
          .endObject();
    json.endArray();
    json.endObject();
  }
  json.endArray();
  json.endObject();
  return json.text() + "\n";
}

std::string plan::explainCollectives(const Reader &reader) {
  std::string result;
  auto add = [&](const std::string &text) { result += text; };
  const plan::Plan &plan = reader.plan();
  plan::Topology topology(plan);
  bool any = false;
  for (uint32_t p = 0; p < plan.programs()->size(); ++p) {
    const plan::Program &program = *plan.programs()->Get(p);
    std::vector<uint64_t> counts = plan::executionCounts(plan, p, 0);
    for (uint32_t i = 0; i < program.instructions()->size(); ++i) {
      const plan::Instruction &item = *program.instructions()->Get(i);
      const plan::InstructionInfo &info = *plan::findInstruction(item.kind());
      if (!info.isCollective())
        continue;
      any = true;
      const plan::Value &group = *program.values()->Get(
          item.values_begin() + static_cast<uint32_t>(info.findValue("group")));
      std::string line =
          std::string(reader.string(program.name())) + " " + std::to_string(i) +
          ": " + info.spelling + " {" +
          topology.groupName(static_cast<uint32_t>(group.value())) + "} " +
          bytesText(plan::collectiveBytes(plan, p, i)) + " per rank";
      if (counts[i] != 1)
        line += " x " + std::to_string(counts[i]);
      std::string_view why = reader.string(item.why());
      line += ": " + (why.empty() ? "no reason recorded" : std::string(why));
      if (item.part() != plan::Part::none)
        line += std::string(", ") + EnumNamePart(item.part());
      if (item.path())
        line += ", path " + std::string(reader.string(item.path()));
      if (item.node())
        line += ", node " + std::string(reader.string(item.node()));
      add(line + "\n");
    }
  }
  if (!any)
    add("no collectives\n");
  return result;
}
