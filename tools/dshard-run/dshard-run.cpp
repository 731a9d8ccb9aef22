//===- dshard-run.cpp - Run a plan ----------------------------------------===//

#include "CommandLine.h"
#include "HostTensors.h"
#include "Report.h"
#include "dshard/Runtime/Cpu/Wait.h"
#include "dshard/Support/Environment.h"
#include "dshard/Support/Text.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

using namespace dshard;
using namespace dshard::run;

static int fail(const Status &status, int code) {
  std::fprintf(stderr, "dshard-run: %s\n", status.message().c_str());
  return code;
}

static Status flushOutput() {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout))
    return Status();
  return Status::error(std::string("cannot write to standard output: ") +
                       std::strerror(errno));
}

/// Under a launcher every rank would be a process of its own, which is not
/// built: running the whole plan once per process would be silently wrong.
static Status refuseLaunchers() {
  const struct {
    const char *variable, *launcher;
  } sizes[] = {{"OMPI_COMM_WORLD_SIZE", "mpirun"},
               {"PMI_SIZE", "mpirun"},
               {"SLURM_STEP_NUM_TASKS", "srun"},
               {"WORLD_SIZE", "torchrun"}};
  for (const auto &each : sizes) {
    const char *text = std::getenv(each.variable);
    int64_t size;
    if (text && parseInteger(text, size) && size > 1)
      return Status::error(
          std::string("running under ") + each.launcher + " (" + each.variable +
          "=" + text +
          ") is not built yet; start dshard-run once, it runs all ranks of "
          "the plan as threads");
  }
  return Status();
}

namespace {
/// A line on a terminal while loading takes long.
class Progress {
public:
  explicit Progress(const Session &session) {
    if (!isatty(STDERR_FILENO))
      return;
    uint64_t states =
        session.plannedPerRank().states * session.topology().rankCount();
    thread = std::thread([this, &session, states] {
      std::unique_lock<std::mutex> lock(mutex);
      bool shown = false;
      while (!changed.wait_for(lock, std::chrono::milliseconds(500),
                               [this] { return done; })) {
        std::fprintf(stderr, "\rloading weights: %s of about %s ",
                     formatBytes(session.loadedBytes()).c_str(),
                     formatBytes(states).c_str());
        shown = true;
      }
      if (shown)
        std::fprintf(stderr, "\r\033[K");
    });
  }
  ~Progress() {
    if (!thread.joinable())
      return;
    {
      std::lock_guard<std::mutex> lock(mutex);
      done = true;
    }
    changed.notify_all();
    thread.join();
  }

private:
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::thread thread;
};
} // namespace

static Result<std::string> chooseEntry(const Session &session,
                                       const CommandLine &line) {
  const auto &entries = *session.plan().plan().entries();
  if (!line.entry.empty()) {
    if (!session.findEntry(line.entry))
      return session.entryError(line.entry);
    return line.entry;
  }
  if (entries.size() == 1)
    return std::string(session.plan().string(entries.Get(0)->name()));
  if (session.findEntry("run"))
    return std::string("run");
  std::vector<std::string> names;
  for (const plan::Entry *entry : entries)
    names.emplace_back(session.plan().string(entry->name()));
  return Status::error("the plan has several entry points (" +
                       join(names, ", ") + "); choose one with --entry");
}

/// One run of all steps; the time without collecting outputs, in milliseconds.
static Status runOnce(Session &session, const std::string &entry,
                      const std::vector<HostTensor> &inputs,
                      std::vector<HostTensor> *outputs, int64_t steps,
                      double &milliseconds) {
  milliseconds = 0;
  for (int64_t step = 0; step < steps; ++step) {
    int64_t begin = cpu::nowNanoseconds();
    if (Status status = session.setInputs(entry, viewsOf(inputs, step));
        !status)
      return status;
    if (Status status = session.execute(entry); !status)
      return status;
    milliseconds += static_cast<double>(cpu::nowNanoseconds() - begin) * 1e-6;
    if (!outputs)
      continue;
    for (HostTensor &output : *outputs)
      if (Status status = session.getOutput(
              entry, output.name, output.data.data() + step * output.stepBytes);
          !status)
        return status;
  }
  return Status();
}

/// DIR/NAME.npy for every state that is not packed.
static Status saveState(Session &session, const std::string &folder) {
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
    return Status::error(folder + ": cannot create: " + std::strerror(errno));
  const auto &states = *session.plan().plan().states();
  uint32_t packed = 0;
  for (uint32_t i = 0; i < states.size(); ++i) {
    const plan::State &state = *states.Get(i);
    if (state.layout() != plan::StateLayout::plain) {
      ++packed;
      continue;
    }
    std::vector<int64_t> dims(state.global()->dims()->begin(),
                              state.global()->dims()->end());
    auto data = AlignedBuffer::allocate(
        plan::elementCount(dims) * plan::byteSize(state.global()->dtype()),
        "a state");
    if (!data)
      return data.status();
    if (Status status = session.getState(i, data->data()); !status)
      return status;
    std::string name(session.plan().string(state.name()));
    std::replace(name.begin(), name.end(), '/', '_');
    if (Status status = writeNpy(folder + "/" + name + ".npy",
                                 state.global()->dtype(), dims, data->data());
        !status)
      return status;
  }
  if (packed)
    log(LogLevel::warning,
        "--save-state left out " + std::to_string(packed) +
            " packed weights: they are those of the model's files");
  return Status();
}

static Status runPlan(const CommandLine &line) {
  auto reader = plan::Reader::open(line.plan);
  if (!reader)
    return reader.status();
  SessionOptions options;
  options.weights.folder = line.weights;
  options.weights.seed = line.randomWeights;
  auto made = Session::create(std::move(*reader), options);
  if (!made)
    return made.status();
  Session &session = **made;

  Report report;
  Result<std::string> entryName = chooseEntry(session, line);
  if (!entryName)
    return entryName.status();
  report.entry = *entryName;
  const plan::Entry &entry = *session.findEntry(report.entry);
  if (Status status = checkOutputs(session, report.entry, line); !status)
    return status;
  auto inputs = readInputs(session, report.entry, line);
  if (!inputs)
    return inputs.status();
  auto outputs = makeOutputs(session, entry, line);
  if (!outputs)
    return outputs.status();
  auto expected = readExpected(*outputs, line);
  if (!expected)
    return expected.status();
  for (const auto &scalar : line.scalars)
    if (Status status = session.setScalar(scalar.first, scalar.second); !status)
      return status;

  MemoryMeter memory;
  memory.start();
  int64_t begin = cpu::nowNanoseconds();
  {
    Progress progress(session);
    if (Status status = session.load(); !status)
      return status;
  }
  report.loadSeconds =
      static_cast<double>(cpu::nowNanoseconds() - begin) * 1e-9;

  report.warmup = line.warmup;
  report.steps = std::max<int64_t>(1, line.steps);
  for (int64_t i = 0; i < line.warmup; ++i) {
    double unused;
    if (Status status = runOnce(session, report.entry, *inputs, nullptr,
                                report.steps, unused);
        !status)
      return status;
  }
  session.clearRecords();
  bool recording = line.json || !line.trace.empty();
  for (int64_t i = 0; i < line.repeat; ++i) {
    bool last = i + 1 == line.repeat;
    session.setRecording(recording, last && !line.trace.empty());
    double milliseconds;
    if (Status status =
            runOnce(session, report.entry, *inputs, last ? &*outputs : nullptr,
                    report.steps, milliseconds);
        !status)
      return status;
    report.milliseconds.push_back(milliseconds);
  }
  report.measuredPeak = memory.peak();

  for (const HostTensor &output : *outputs)
    report.outputs.emplace_back(&output, statisticsOf(output));
  for (const Named &wanted : line.outputs)
    for (const HostTensor &output : *outputs)
      if (output.name == wanted.first)
        if (Status status = writeNpy(wanted.second, output.type, output.dims,
                                     output.data.data());
            !status)
          return status;
  if (!line.saveState.empty())
    if (Status status = saveState(session, line.saveState); !status)
      return status;
  if (!line.trace.empty())
    if (Status status = writeTrace(session, line.trace); !status)
      return status;
  Status outcome;
  double rtol = line.rtol.value_or(0), atol = line.atol.value_or(0);
  for (const Expected &each : *expected) {
    report.comparisons.push_back(compare(each, rtol, atol));
    const Comparison &comparison = report.comparisons.back();
    if (!comparison.within && outcome.ok())
      outcome = Status::error("output '" + comparison.name + "' differs from " +
                              each.file + " by up to " +
                              formatDouble(comparison.largest) +
                              ", more than --rtol " + formatDouble(rtol) +
                              " --atol " + formatDouble(atol) + " allow");
  }
  std::string text =
      line.json ? jsonReport(session, report) : textReport(session, report);
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (Status status = flushOutput(); !status)
    return status;
  return outcome;
}

int main(int argc, char **argv) {
  auto line = parseCommandLine(argc, argv);
  if (!line)
    return fail(line.status(), 2);
  if (line->help) {
    std::fputs(helpText, stdout);
    Status status = flushOutput();
    return status ? 0 : fail(status, 1);
  }
  for (const std::string &name : unknownEnvironment())
    log(LogLevel::warning, "unknown environment variable " + name);
  if (Status status = refuseLaunchers(); !status)
    return fail(status, 1);
  if (Status status = runPlan(*line); !status)
    return fail(status, 1);
  return 0;
}
