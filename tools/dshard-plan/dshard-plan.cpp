// dshard-plan: look at a plan without running it. Exit status: 0 done, 1 the
// plan is wrong, 2 the command line is.
#include "dshard/Plan/PlanPrinter.h"
#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/PlanStatistics.h"
#include "dshard/Plan/PlanVerifier.h"
#include "dshard/Plan/RankShare.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Support/Json.h"
#include "dshard/Support/Text.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

using namespace dshard;

static const char *const help =
    R"(usage: dshard-plan COMMAND PLAN.dsplan [--json]

Looks at a sharded execution plan that dshard-opt wrote. Any plan can be read on
any machine.

commands:
  print      the whole plan as text: mesh, states, buffers, every instruction
  verify     prove that all ranks can run it: memory is written before it is read
             and not reused too early, sizes agree, collectives meet
  stat       exact memory per rank, instructions by kind, bytes of collectives by
             kind and axis; --json prints one JSON object instead
  explain    every collective with its reason, axes, bytes and source node

options:
  --json     for stat
  --help     this text

examples:
  dshard-plan stat llama-tp4.dsplan
  dshard-plan stat llama-tp4.dsplan --json
  dshard-plan explain llama-tp4.dsplan
  dshard-plan print llama-tp4.dsplan | grep all_reduce
  dshard-plan verify llama-tp4.dsplan && echo ready

exit status: 0 done, 1 the plan is wrong, 2 the command line is wrong
)";

static int fail(int status, const std::string &message) {
  std::fprintf(stderr, "dshard-plan: %s\n", message.c_str());
  return status;
}

static void print(const std::string &text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

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

static int stat(const plan::Reader &reader) {
  const plan::Plan &plan = reader.plan();
  uint64_t allRanks = 0;
  plan::PlanStatistics statistics = largestRank(plan, allRanks);
  bool isPipeline = plan::stageRanks(plan) > 1;
  std::string largest;
  for (const plan::ProgramStatistics &program : statistics.programs)
    if (largest.empty() && program.arena == statistics.arena)
      largest = program.name;
  auto row = [&](const std::string &name, const std::string &text) {
    print("  " + padded(name, 28) + text + "\n");
  };
  print(reader.name() + ": " + std::to_string(statistics.ranks) + " ranks <" +
        plan::meshText(plan) + ">, target " + plan.target()->str() + ", " +
        std::to_string(plan.programs()->size()) + " programs\n");
  row("plan hash", toString(reader.hash()));
  print(isPipeline ? "memory of the rank that needs most\n"
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
  print("memory of all ranks\n");
  row("peak, without threads", bytesText(allRanks));
  row("code, once per process", bytesText(statistics.code));
  for (const plan::ProgramStatistics &program : statistics.programs) {
    uint64_t total = 0;
    std::vector<std::string> kinds;
    for (auto &[kind, count] : program.instructions) {
      total += count;
      kinds.push_back(kind + " " + std::to_string(count));
    }
    print("program '" + program.name + "': " + std::to_string(total) +
          " instructions\n");
    row("arena", bytesText(program.arena));
    row("instructions", join(kinds, ", "));
    for (auto &[key, traffic] : program.collectives)
      row(key.first + " {" + key.second + "}",
          std::to_string(traffic.count) + " x, " + bytesText(traffic.bytes) +
              " of operands per rank");
  }
  return 0;
}

static int statJson(const plan::Reader &reader) {
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
  print(json.text() + "\n");
  return 0;
}

static int explain(const plan::Reader &reader) {
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
      print(line + "\n");
    }
  }
  if (!any)
    print("no collectives\n");
  return 0;
}

static int run(int argc, char **argv) {
  static const std::vector<std::string> commands = {
      "print", "verify", "stat", "diff", "explain", "report", "estimate"};
  std::vector<std::string> arguments;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      print(help);
      return 0;
    }
    if (argument == "--json")
      json = true;
    else if (argument.size() > 1 && argument[0] == '-')
      return fail(2, "unknown option '" + argument + "'" +
                         didYouMean(argument, {"--json", "--help"}));
    else
      arguments.push_back(argument);
  }
  if (arguments.empty())
    return fail(2, "no command; dshard-plan --help lists them");
  const std::string &command = arguments[0];
  bool isKnown = false;
  for (const std::string &name : commands)
    isKnown |= name == command;
  if (!isKnown)
    return fail(2, "unknown command '" + command + "'" +
                       didYouMean(command, commands) +
                       "; dshard-plan --help lists them");
  if (command == "diff" || command == "report" || command == "estimate")
    return fail(1, "'" + command +
                       "' is not there yet; print, verify, stat "
                       "and explain are");
  if (arguments.size() != 2)
    return fail(2, "'" + command + "' takes one plan, got " +
                       std::to_string(arguments.size() - 1));
  if (json && command != "stat")
    return fail(2, "--json is for stat");

  auto reader = plan::Reader::open(arguments[1]);
  if (!reader)
    return fail(1, reader.status().message());
  const plan::Plan &plan = (*reader)->plan();
  if (command == "print") {
    print(plan::printPlan(plan));
    return 0;
  }
  if (command == "stat")
    return json ? statJson(**reader) : stat(**reader);
  if (command == "explain")
    return explain(**reader);
  if (Status status = plan::verifyPlan(plan); !status)
    return fail(1, arguments[1] + ": " + status.message());
  uint64_t instructions = 0;
  for (const plan::Program *program : *plan.programs())
    instructions += program->instructions()->size();
  print(arguments[1] + ": verified for " +
        std::to_string(plan::Topology(plan).rankCount()) + " ranks, " +
        std::to_string(plan.programs()->size()) + " programs, " +
        std::to_string(instructions) + " instructions\n");
  return 0;
}

int main(int argc, char **argv) {
  int status = run(argc, argv);
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return fail(1, std::string("cannot write to standard output: ") +
                       std::strerror(errno));
  return status;
}
