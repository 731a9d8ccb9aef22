//===- Report.cpp - What a run took ---------------------------------------===//

#include "Report.h"

#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Json.h"
#include "dshard/Support/Text.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

using namespace dshard;
using namespace dshard::run;

/// A line of /proc/self/status in bytes: "VmHWM:   1234 kB".
static uint64_t statusBytes(const char *key) {
  uint64_t result = 0;
  std::FILE *file = std::fopen("/proc/self/status", "r");
  if (!file)
    return 0;
  char line[256];
  while (std::fgets(line, sizeof(line), file))
    if (std::strncmp(line, key, std::strlen(key)) == 0)
      result = std::strtoull(line + std::strlen(key), nullptr, 10) * 1024;
  std::fclose(file);
  return result;
}

void MemoryMeter::start() {
  // Resets the high-water mark where that is allowed; else it stays what it was
  // and counts for the time before.
  if (std::FILE *file = std::fopen("/proc/self/clear_refs", "w")) {
    std::fputs("5", file);
    std::fclose(file);
  }
  before = statusBytes("VmHWM:");
}

uint64_t MemoryMeter::peak() const {
  uint64_t now = statusBytes("VmHWM:");
  return now > before ? now - before : 0;
}

namespace {
struct Latency {
  explicit Latency(std::vector<double> values) : sorted(std::move(values)) {
    std::sort(sorted.begin(), sorted.end());
  }
  std::vector<double> sorted;
  double at(double part) const {
    double place = part * static_cast<double>(sorted.size() - 1);
    size_t low = static_cast<size_t>(place);
    size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] +
           (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
  }
  double mean() const {
    return std::accumulate(sorted.begin(), sorted.end(), 0.0) /
           static_cast<double>(sorted.size());
  }
};

struct CollectiveRow {
  std::string kind, axes;
  uint64_t count, bytes;
};

/// One rank's collectives in one run; where ranks differ, the largest.
std::vector<CollectiveRow> collectivesOf(Session &session, uint64_t runs) {
  std::map<std::pair<std::string, std::string>, ExecutionRecord::Collective>
      rows;
  for (uint32_t rank = 0; rank < session.topology().rankCount(); ++rank)
    for (const auto &each : session.record(rank).collectives) {
      auto &row = rows[{plan::instructionInfo(each.first.first).spelling,
                        session.topology().groupName(each.first.second)}];
      row.count = std::max(row.count, each.second.count);
      row.bytes = std::max(row.bytes, each.second.bytes);
    }
  std::vector<CollectiveRow> result;
  for (const auto &row : rows)
    result.push_back({row.first.first, row.first.second,
                      row.second.count / runs, row.second.bytes / runs});
  return result;
}

std::string typeText(const HostTensor &tensor) {
  std::string text = std::string(plan::toString(tensor.type)) + "[";
  for (size_t i = 0; i < tensor.dims.size(); ++i)
    text += (i ? "x" : "") + std::to_string(tensor.dims[i]);
  return text + "]";
}

double valueAt(const HostTensor &tensor, int64_t index) {
  return cpu::elementAsDouble(tensor.data.data(), tensor.type, index);
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.6g", value);
  return text;
}
} // namespace

std::string dshard::run::jsonReport(Session &session, const Report &report) {
  JsonWriter json;
  uint32_t ranks = session.topology().rankCount();
  RankMemory memory = session.plannedPerRank();
  uint64_t runs = report.milliseconds.size() * report.steps;
  json.beginObject();
  json.key("plan").value(session.plan().name());
  json.key("entry").value(report.entry);
  json.key("mesh").value(plan::meshText(session.plan().plan()));
  json.key("ranks").value(ranks);
  json.key("threads_per_rank").value(session.threadsPerRank());
  json.key("kernels").value(session.runsOnGpus()
                                ? session.plan().plan().target()->str()
                                : std::string(cpu::kernelName()));
  json.key("load_seconds").value(report.loadSeconds);

  // Copying the inputs in and running; collecting the outputs is not in it.
  Latency latency(report.milliseconds);
  auto spread = [&](const Latency &each) {
    json.key("min").value(each.at(0));
    json.key("median").value(each.at(0.5));
    json.key("mean").value(each.mean());
    json.key("p90").value(each.at(0.9));
    json.key("p99").value(each.at(0.99));
    json.key("max").value(each.at(1));
    json.endObject();
  };
  json.key("latency_ms").beginObject();
  json.key("warmup").value(report.warmup);
  json.key("repeat").value(report.milliseconds.size());
  json.key("steps").value(report.steps);
  spread(latency);
  if (report.stepped) {
    Latency step(report.stepMilliseconds);
    json.key("steps_per_second").value(1e3 / step.mean());
    json.key("step_latency_ms").beginObject();
    json.key("count").value(step.sorted.size());
    spread(step);
  }

  // measured_sum leaves out what the process held before the plan's memory was
  // taken: its code, the mapped plan, the global inputs and outputs.
  json.key("peak_memory").beginObject();
  json.key("planned_per_rank").value(memory.total());
  json.key("planned_states_per_rank").value(memory.states);
  json.key("planned_arena_per_rank").value(memory.arena);
  json.key("planned_scratch_per_rank").value(memory.scratch);
  json.key("planned_messages_per_rank").value(memory.messages);
  json.key("planned_sum").value(session.plannedOfAllRanks().total());
  // What is measured is the host's memory, not the GPUs'.
  if (!session.runsOnGpus())
    json.key("measured_sum").value(report.measuredPeak);
  json.endObject();

  // Of one rank in one run.
  json.key("collectives").beginArray();
  for (const CollectiveRow &row : collectivesOf(session, runs)) {
    json.beginObject();
    json.key("kind").value(row.kind);
    json.key("axes").value(row.axes);
    json.key("count").value(row.count);
    json.key("bytes").value(row.bytes);
    json.endObject();
  }
  json.endArray();

  // Mean over the ranks of one run; a collective's time includes waiting.
  std::map<plan::InstructionKind, ExecutionRecord::Kind> kinds;
  for (uint32_t rank = 0; rank < ranks; ++rank)
    for (const auto &each : session.record(rank).kinds) {
      kinds[each.first].count += each.second.count;
      kinds[each.first].nanoseconds += each.second.nanoseconds;
    }
  json.key("instructions").beginArray();
  for (const auto &each : kinds) {
    double share = 1.0 / static_cast<double>(ranks * runs);
    json.beginObject();
    json.key("kind").value(plan::instructionInfo(each.first).spelling);
    json.key("count").value(static_cast<double>(each.second.count) * share);
    json.key("milliseconds")
        .value(static_cast<double>(each.second.nanoseconds) * 1e-6 * share);
    json.endObject();
  }
  json.endArray();

  json.key("outputs").beginArray();
  for (const auto &output : report.outputs) {
    json.beginObject();
    json.key("name").value(output.first->name);
    json.key("type").value(plan::toString(output.first->type));
    json.key("shape").beginArray();
    for (int64_t dim : output.first->dims)
      json.value(dim);
    json.endArray();
    json.key("min").value(output.second.minimum);
    json.key("max").value(output.second.maximum);
    json.key("mean").value(output.second.mean);
    json.key("not_finite").value(output.second.notFinite);
    json.endObject();
  }
  json.endArray();

  json.key("comparisons").beginArray();
  for (const Comparison &comparison : report.comparisons) {
    json.beginObject();
    json.key("name").value(comparison.name);
    json.key("largest_difference").value(comparison.largest);
    json.key("within").value(comparison.within);
    json.endObject();
  }
  json.endArray();
  json.endObject();
  return json.text() + "\n";
}

std::string dshard::run::textReport(Session &session, const Report &report) {
  uint32_t ranks = session.topology().rankCount();
  RankMemory memory = session.plannedPerRank();
  std::string mesh = plan::meshText(session.plan().plan());
  std::string text;
  auto add = [&](const std::string &line) { text += line + "\n"; };
  add("entry point '" + report.entry + "' on " + std::to_string(ranks) +
      (ranks == 1 ? " rank" : " ranks") +
      (mesh.empty() ? "" : " (" + mesh + ")") + ", " +
      (session.runsOnGpus()
           ? session.plan().plan().target()->str()
           : std::to_string(session.threadsPerRank()) +
                 (session.threadsPerRank() == 1 ? " thread" : " threads") +
                 " per rank, " + cpu::kernelName() + " kernels"));
  for (const auto &output : report.outputs) {
    std::string line = output.first->name + ": " + typeText(*output.first) +
                       ", min " + number(output.second.minimum) + ", max " +
                       number(output.second.maximum) + ", mean " +
                       number(output.second.mean);
    // One number a step: what people look for is where it went.
    if (report.stepped &&
        plan::elementCount(output.first->dims) == report.steps)
      line += ", first " + number(valueAt(*output.first, 0)) + ", last " +
              number(valueAt(*output.first, report.steps - 1));
    if (output.second.notFinite)
      line += ", " + formatCount(output.second.notFinite) + " not finite";
    add(line);
  }
  for (const Comparison &comparison : report.comparisons) {
    std::string line =
        comparison.name + ": largest difference " + number(comparison.largest);
    if (comparison.largest > 0)
      line += " at " + dimsText(comparison.place) + " (" +
              number(comparison.ours) + ", expected " +
              number(comparison.theirs) + ")";
    add(line + (comparison.within ? ", within the tolerance"
                                  : ", outside the tolerance"));
  }
  Latency latency(report.milliseconds);
  std::string time = "time: " + number(latency.at(0.5)) + " ms";
  if (latency.sorted.size() > 1)
    time += " (median of " + std::to_string(latency.sorted.size()) + "; min " +
            number(latency.at(0)) + ", max " + number(latency.at(1)) + ")";
  add(time + ", loading " + number(report.loadSeconds * 1e3) + " ms");
  if (report.stepped) {
    Latency step(report.stepMilliseconds);
    add("steps: " + number(1e3 / step.mean()) + " per second, median " +
        number(step.at(0.5)) + " ms, 99 % within " + number(step.at(0.99)) +
        " ms");
  }
  add("peak memory: planned " + formatBytes(memory.total()) + " per rank, " +
      formatBytes(session.plannedOfAllRanks().total()) + " in sum" +
      (session.runsOnGpus()
           ? ""
           : "; measured " + formatBytes(report.measuredPeak) + " in sum"));
  for (const CollectiveRow &row :
       collectivesOf(session, report.milliseconds.size() * report.steps))
    add("collective: " + row.kind + " over " + row.axes + ", " +
        std::to_string(row.count) + " per run, " + formatBytes(row.bytes) +
        " per rank");
  return text;
}

Status dshard::run::writeTrace(Session &session, const std::string &path) {
  auto file = FileWriter::open(path);
  if (!file)
    return file.status();
  const plan::Reader &reader = session.plan();
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  int64_t origin = INT64_MAX;
  for (uint32_t rank = 0; rank < session.topology().rankCount(); ++rank)
    for (const auto &event : session.record(rank).events)
      origin = std::min(origin, event.begin);
  // One event a line, so that a long run need not be held as text.
  bool first = true;
  auto add = [&](const JsonWriter &event) {
    text += (first ? "" : ",\n") + event.text();
    first = false;
    if (text.size() <= (1 << 20))
      return Status();
    Status status = file->write(text.data(), text.size());
    text.clear();
    return status;
  };
  for (uint32_t rank = 0; rank < session.topology().rankCount(); ++rank) {
    JsonWriter thread(/*indented=*/false);
    thread.beginObject();
    thread.key("ph").value("M").key("pid").value(0).key("tid").value(rank);
    thread.key("name").value("thread_name").key("args").beginObject();
    thread.key("name").value("rank " + std::to_string(rank));
    thread.endObject().endObject();
    if (Status status = add(thread); !status)
      return status;
    for (const auto &event : session.record(rank).events) {
      const plan::Program &program =
          *reader.plan().programs()->Get(event.program);
      const plan::Instruction &instruction =
          *program.instructions()->Get(event.instruction);
      const std::string &kind =
          plan::instructionInfo(
              static_cast<plan::InstructionKind>(instruction.kind()))
              .spelling;
      std::string_view node = reader.string(instruction.node());
      // Times in microseconds.
      JsonWriter json(/*indented=*/false);
      json.beginObject();
      json.key("ph").value("X").key("pid").value(0).key("tid").value(rank);
      json.key("ts").value(static_cast<double>(event.begin - origin) / 1e3);
      json.key("dur").value(static_cast<double>(event.end - event.begin) / 1e3);
      json.key("cat").value(kind).key("name").value(node.empty() ? kind : node);
      json.key("args").beginObject();
      json.key("program").value(reader.string(program.name()));
      json.key("instruction").value(event.instruction);
      json.key("path").value(reader.string(instruction.path()));
      json.key("why").value(reader.string(instruction.why()));
      json.endObject().endObject();
      if (Status status = add(json); !status)
        return status;
    }
  }
  text += "\n]}\n";
  if (Status status = file->write(text.data(), text.size()); !status)
    return status;
  return file->commit();
}
