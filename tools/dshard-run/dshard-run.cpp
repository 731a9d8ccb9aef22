//===- dshard-run.cpp - Run a plan ----------------------------------------===//

#include "CommandLine.h"
#include "HostTensors.h"
#include "Progress.h"
#include "Report.h"
#include "dshard/Runtime/Cpu/Wait.h"
#include "dshard/Support/Environment.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Text.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sys/stat.h>
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

/// What must be finite after a step (Port.finite): an error where training has
/// to stop, a warning where the step was left out.
static Status checkFinite(Session &session, const std::string &entry,
                          int64_t step) {
  std::vector<Session::NotFinite> found = session.findNotFinite(entry);
  if (found.empty())
    return Status();
  std::string text = notFiniteText(found) + " in step " + std::to_string(step);
  if (!found[0].skipped)
    return Status::error(
        text + "; its values or the sum of their squares "
               "are NaN or infinite; this step changed nothing (a smaller "
               "--scalar lr, or \"nonfinite\": \"skip\" in "
               "the training configuration to go on)");
  log(LogLevel::warning, text + "; the step is skipped");
  return Status();
}

namespace {
/// Runs of all steps, with what they are counted for.
struct Runner {
  Session &session;
  const std::string &entry;
  const std::vector<HostTensor> &inputs;
  int64_t steps;
  std::atomic<int64_t> done{0}; // steps, of all runs

  /// The time of a run without collecting outputs, and of each of its steps, in
  /// milliseconds.
  Status run(std::vector<HostTensor> *outputs, double &milliseconds,
             std::vector<double> &each);
};
} // namespace

Status Runner::run(std::vector<HostTensor> *outputs, double &milliseconds,
                   std::vector<double> &each) {
  milliseconds = 0;
  for (int64_t step = 0; step < steps; ++step) {
    int64_t begin = cpu::nowNanoseconds();
    if (Status status = session.setInputs(entry, viewsOf(inputs, step));
        !status)
      return status;
    if (Status status = session.execute(entry); !status)
      return status;
    each.push_back(static_cast<double>(cpu::nowNanoseconds() - begin) * 1e-6);
    milliseconds += each.back();
    if (Status status = checkFinite(session, entry, done + 1); !status)
      return status;
    ++done;
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

static std::string stateFileName(const Session &session,
                                 const plan::State &state) {
  std::string name(session.plan().string(state.name()));
  std::replace(name.begin(), name.end(), '/', '_');
  return name + ".npy";
}

static Status makeFolder(const std::string &folder) {
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
    return Status::error(folder + ": cannot create: " + std::strerror(errno));
  return Status();
}

/// Refused before a long run: a folder that cannot be made, and states whose
/// files would have one name. A run that stops leaves no empty folder.
static Status checkSaveState(const Session &session,
                             const std::string &folder) {
  bool exists = ::access(folder.c_str(), F_OK) == 0;
  std::set<std::string> names;
  for (const plan::State *state : *session.plan().plan().states())
    if (state->layout() == plan::StateLayout::plain &&
        !names.insert(stateFileName(session, *state)).second)
      return Status::error("--save-state: two states would be written to " +
                           folder + "/" + stateFileName(session, *state));
  Status status = makeFolder(folder);
  if (status)
    status = FileWriter::check(folder + "/state.npy");
  if (!exists)
    ::rmdir(folder.c_str());
  return status;
}

/// DIR/NAME.npy for every state that is not packed. All of them are written
/// under DIR/.partial first, so that no folder mixes two runs because one of
/// them could not be written.
static Status saveState(Session &session, const std::string &folder) {
  std::string partial = folder + "/.partial";
  for (const std::string &each : {folder, partial})
    if (Status made = makeFolder(each); !made)
      return made;
  const auto &states = *session.plan().plan().states();
  uint32_t packed = 0;
  std::vector<std::string> files;
  Status status;
  for (uint32_t i = 0; i < states.size() && status.ok(); ++i) {
    const plan::State &state = *states.Get(i);
    if (state.layout() != plan::StateLayout::plain) {
      ++packed;
      continue;
    }
    std::vector<int64_t> dims = session.stateDims(i);
    auto data = AlignedBuffer::allocate(
        plan::elementCount(dims) * plan::byteSize(state.global()->dtype()),
        "a state");
    status = data.status();
    if (status)
      status = session.getState(i, data->data());
    files.push_back(stateFileName(session, state));
    if (status)
      status = writeNpy(partial + "/" + files.back(), state.global()->dtype(),
                        dims, data->data());
  }
  for (const std::string &file : files) {
    std::string from = partial + "/" + file, to = folder + "/" + file;
    if (status && ::rename(from.c_str(), to.c_str()) != 0)
      status = Status::error(to + ": cannot write: " + std::strerror(errno));
    if (!status)
      ::unlink(from.c_str());
  }
  ::rmdir(partial.c_str());
  if (!status)
    return status;
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

  if (!line.saveState.empty())
    if (Status status = checkSaveState(session, line.saveState); !status)
      return status;

  MemoryMeter memory;
  memory.start();
  int64_t begin = cpu::nowNanoseconds();
  {
    uint64_t states = session.plannedOfAllRanks().states;
    Progress progress([&](double) {
      return "loading weights: " + formatBytes(session.loadedBytes()) +
             " of about " + formatBytes(states);
    });
    if (Status status = session.load(); !status)
      return status;
  }
  report.loadSeconds =
      static_cast<double>(cpu::nowNanoseconds() - begin) * 1e-9;

  report.warmup = line.warmup;
  report.steps = std::max<int64_t>(1, line.steps);
  report.stepped = line.steps > 0;
  bool recording = line.json || !line.trace.empty();
  Runner runner{session, report.entry, *inputs, report.steps};
  int64_t total = (line.warmup + line.repeat) * report.steps;
  {
    Progress progress([&](double seconds) {
      return progressText(line.steps ? "step" : "run", runner.done, total,
                          seconds);
    });
    for (int64_t i = 0; i < line.warmup + line.repeat; ++i) {
      bool last = i + 1 == line.warmup + line.repeat;
      if (i == line.warmup) {
        session.clearRecords();
        report.stepMilliseconds.clear();
      }
      session.setRecording(recording && i >= line.warmup,
                           last && !line.trace.empty());
      double milliseconds;
      if (Status status = runner.run(last ? &*outputs : nullptr, milliseconds,
                                     report.stepMilliseconds);
          !status)
        return status;
      if (i >= line.warmup)
        report.milliseconds.push_back(milliseconds);
    }
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
