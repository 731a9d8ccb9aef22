// dshard-plan: look at a plan without running it. Exit status: 0 done, 1 the
// plan is wrong, 2 the command line is.
#include "dshard/Plan/PlanPrinter.h"
#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/PlanReport.h"
#include "dshard/Plan/PlanVerifier.h"
#include "dshard/Plan/Topology.h"
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
  if (command == "stat" || command == "explain") {
    print(command == "explain" ? plan::explainCollectives(**reader)
          : json               ? plan::statisticsJson(**reader)
                               : plan::statisticsText(**reader));
    return 0;
  }
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
