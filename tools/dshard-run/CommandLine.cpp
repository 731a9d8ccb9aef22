//===- CommandLine.cpp - The arguments of dshard-run ----------------------===//

#include "CommandLine.h"

#include "dshard/Support/Text.h"

#include <functional>
#include <map>

using namespace dshard;
using namespace dshard::run;

const char dshard::run::helpText[] =
    R"(dshard-run PLAN.dsplan --input NAME=FILE.npy ... [options]

Runs a plan that dshard-opt made: all its ranks, as threads of this process.
Inputs and outputs are global tensors.

  --input NAME=FILE.npy          an input, as numpy saves it
  --input NAME=random[:SEED]     floats in [-1, 1), ids below the size of what
                                 they index, masks all ones
  --output NAME=FILE.npy         write an output (bf16 as its bits, '<u2')
  --expected NAME=FILE.npy       compare an output: |ours - theirs| must be at
      --rtol R --atol A          most A + R |theirs|; exit status 1 if it is not
  --entry NAME                   entry point (default: the only one, or 'run')
  --steps N                      run N times; inputs and outputs have a leading
                                 dim of N
  --scalar NAME=VALUE            set a scalar of the plan
  --save-state DIR               at the end, write every unpacked state as
                                 DIR/NAME.npy, whole
  --weights DIR                  where the weight files are (default: beside the
                                 model)
  --random-weights[=SEED]        draw the weights instead of reading them
  --repeat N, --warmup N         run N times for the statistics, after N others
  --report=json                  one JSON object on standard output
  --trace=FILE.json              the last run, for chrome://tracing

A training step whose gradients are not finite ends the run (exit status 1), or
is skipped with a warning where the plan says so.

Environment: DSHARD_THREADS (worker threads per rank), DSHARD_KERNELS=portable,
DSHARD_CUDA_LIBRARY, DSHARD_CUBLASLT_LIBRARY and DSHARD_NCCL_LIBRARY (paths).
Exit status: 0 done, 1 the input or the run is wrong, 2 the command line is.

Examples:
  dshard-run mlp.dsplan --input x=x.npy --output y=y.npy
  dshard-run llama.dsplan --random-weights --input input_ids=random \
      --input attention_mask=random --repeat 10 --warmup 2 --report=json
  dshard-run mlp.dsplan --entry train_step --steps 100 --scalar lr=3e-4 \
      --input x=x.npy --input labels=labels.npy --output loss=loss.npy \
      --save-state trained
  dshard-run mlp.dsplan --input x=x.npy --expected y=y.npy --rtol 1e-4 --atol 1e-5
)";

static Status setNamed(std::vector<Named> &list, const std::string &flag,
                       const std::string &text) {
  size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos || equals + 1 == text.size())
    return Status::error(flag + " wants NAME=FILE, not '" + text + "'");
  std::string name = text.substr(0, equals);
  for (const Named &other : list)
    if (other.first == name)
      return Status::error(flag + " names '" + name + "' twice");
  list.emplace_back(name, text.substr(equals + 1));
  return Status();
}

Result<CommandLine> dshard::run::parseCommandLine(int argc, char **argv) {
  CommandLine line;
  using Handler =
      std::function<Status(const std::string &flag, const std::string &value)>;
  auto text = [](std::string &to) -> Handler {
    return [&to](const std::string &flag, const std::string &value) {
      if (value.empty())
        return Status::error(flag + " is empty");
      to = value;
      return Status();
    };
  };
  auto named = [](std::vector<Named> &to) -> Handler {
    return [&to](const std::string &flag, const std::string &value) {
      return setNamed(to, flag, value);
    };
  };
  auto count = [](int64_t &to, int64_t low) -> Handler {
    return [&to, low](const std::string &flag, const std::string &value) {
      if (parseInteger(value, to, low, 1000000000))
        return Status();
      return Status::error(flag + " wants a number of at least " +
                           std::to_string(low) + ", not '" + value + "'");
    };
  };
  auto tolerance = [](std::optional<double> &to) -> Handler {
    return [&to](const std::string &flag, const std::string &value) {
      double number;
      if (!parseDouble(value, number) || !(number >= 0))
        return Status::error(flag + " wants a number of at least 0, not '" +
                             value + "'");
      to = number;
      return Status();
    };
  };
  std::map<std::string, Handler> flags = {
      {"--input", named(line.inputs)},
      {"--output", named(line.outputs)},
      {"--expected", named(line.expected)},
      {"--rtol", tolerance(line.rtol)},
      {"--atol", tolerance(line.atol)},
      {"--entry", text(line.entry)},
      {"--steps", count(line.steps, 1)},
      {"--save-state", text(line.saveState)},
      {"--weights", text(line.weights)},
      {"--repeat", count(line.repeat, 1)},
      {"--warmup", count(line.warmup, 0)},
      {"--trace", text(line.trace)},
      {"--scalar",
       [&](const std::string &flag, const std::string &value) {
         std::vector<Named> one;
         if (Status status = setNamed(one, flag, value); !status)
           return Status::error(flag + " wants NAME=VALUE, not '" + value +
                                "'");
         double number;
         if (!parseDouble(one[0].second, number))
           return Status::error(flag + " " + one[0].first +
                                " wants a number, not '" + one[0].second + "'");
         for (const auto &other : line.scalars)
           if (other.first == one[0].first)
             return Status::error(flag + " names '" + other.first + "' twice");
         line.scalars.emplace_back(one[0].first, number);
         return Status();
       }},
      {"--random-weights",
       [&](const std::string &flag, const std::string &value) {
         int64_t seed;
         if (!parseInteger(value, seed, 0))
           return Status::error(flag + " wants a seed, not '" + value + "'");
         line.randomWeights = static_cast<uint64_t>(seed);
         return Status();
       }},
      {"--report", [&](const std::string &flag, const std::string &value) {
         if (value != "json")
           return Status::error(flag + " can be json, not '" + value + "'");
         line.json = true;
         return Status();
       }}};
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      line.help = true;
      return line;
    }
    if (argument.size() < 2 || argument[0] != '-') {
      if (!line.plan.empty())
        return Status::error("two plans: '" + line.plan + "' and '" + argument +
                             "'");
      line.plan = argument;
      continue;
    }
    size_t equals = argument.find('=');
    std::string flag = argument.substr(0, equals);
    auto handler = flags.find(flag);
    if (handler == flags.end()) {
      std::vector<std::string> names;
      for (const auto &each : flags)
        names.push_back(each.first);
      return Status::error("unknown flag '" + flag + "'" +
                           didYouMean(flag, names) + "; see --help");
    }
    std::string value;
    if (equals != std::string::npos)
      value = argument.substr(equals + 1);
    else if (flag == "--random-weights")
      value = "0"; // its seed may only follow an equals sign
    else if (i + 1 < argc)
      value = argv[++i];
    else
      return Status::error(flag + " wants a value; see --help");
    if (Status status = handler->second(flag, value); !status)
      return status;
  }
  if (line.plan.empty())
    return Status::error("no plan given; usage: dshard-run PLAN.dsplan --input "
                         "NAME=FILE.npy ..., see --help");
  if (!line.expected.empty() && !line.rtol && !line.atol)
    return Status::error("--expected needs --rtol, --atol or both");
  if (line.expected.empty() && (line.rtol || line.atol))
    return Status::error("--rtol and --atol need --expected");
  return line;
}
