//===- Runtime.cpp - Read and run plans from C ----------------------------===//

#include "dshard/CAPI/Runtime.h"

#include "dshard/Plan/PlanPrinter.h"
#include "dshard/Plan/PlanReport.h"
#include "dshard/Plan/PlanVerifier.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Runtime/Session.h"

#include <cstring>

using namespace dshard;

static_assert(DSHARD_BOOL == static_cast<int>(plan::DataType::boolean) &&
                  DSHARD_F64 == static_cast<int>(plan::DataType::f64),
              "dshard_dtype_t is the plan's DataType");

struct dshard_plan_t {
  std::unique_ptr<plan::Reader> reader;
};

struct dshard_session_t {
  std::unique_ptr<Session> session;
  struct State {
    uint32_t index; // of Plan.states
    std::string name;
    std::vector<int64_t> dims;
  };
  std::vector<State> states;
};

static char *toError(const Status &status) {
  return status ? nullptr : ::strdup(status.message().c_str());
}

static char *give(const std::string &text, char **to) {
  *to = ::strdup(text.c_str());
  return nullptr;
}

//===----------------------------------------------------------------------===//
// Plans
//===----------------------------------------------------------------------===//

char *dshard_plan_open(const char *path, dshard_plan_t **plan) {
  auto reader = plan::Reader::open(path);
  if (!reader)
    return toError(reader.status());
  *plan = new dshard_plan_t{std::move(*reader)};
  return nullptr;
}

void dshard_plan_close(dshard_plan_t *plan) { delete plan; }

char *dshard_plan_print(dshard_plan_t *plan, char **text) {
  return give(plan::printPlan(plan->reader->plan()), text);
}
char *dshard_plan_stat(dshard_plan_t *plan, char **text) {
  return give(plan::statisticsText(*plan->reader), text);
}
char *dshard_plan_stat_json(dshard_plan_t *plan, char **text) {
  return give(plan::statisticsJson(*plan->reader), text);
}
char *dshard_plan_explain(dshard_plan_t *plan, char **text) {
  return give(plan::explainCollectives(*plan->reader), text);
}
char *dshard_plan_verify(dshard_plan_t *plan) {
  Status status = plan::verifyPlan(plan->reader->plan());
  return status ? nullptr
                : toError(Status::error(plan->reader->name() + ": " +
                                        status.message()));
}

uint32_t dshard_plan_ranks(dshard_plan_t *plan) {
  return plan::Topology(plan->reader->plan()).rankCount();
}
const char *dshard_plan_target(dshard_plan_t *plan) {
  return plan->reader->plan().target()->c_str();
}
uint32_t dshard_plan_entries(dshard_plan_t *plan) {
  return plan->reader->plan().entries()->size();
}

/// The strings of a plan end in a zero byte.
static const char *textOf(dshard_plan_t *plan, uint32_t string) {
  return plan->reader->string(string).data();
}

static const plan::Entry *entryOf(dshard_plan_t *plan, uint32_t entry) {
  return entry < dshard_plan_entries(plan)
             ? plan->reader->plan().entries()->Get(entry)
             : nullptr;
}

const char *dshard_plan_entry(dshard_plan_t *plan, uint32_t entry) {
  const plan::Entry *found = entryOf(plan, entry);
  return found ? textOf(plan, found->name()) : "";
}

/// An input that several stages read has a port for each: the first counts.
template <typename Ports>
static std::vector<const plan::Port *> uniquePorts(const Ports &ports) {
  std::vector<const plan::Port *> result;
  for (const plan::Port *port : ports) {
    bool seen = false;
    for (const plan::Port *other : result)
      seen |= other->name() == port->name();
    if (!seen)
      result.push_back(port);
  }
  return result;
}

static std::vector<const plan::Port *> portsOf(dshard_plan_t *plan,
                                               uint32_t entry, bool inputs) {
  const plan::Entry *found = entryOf(plan, entry);
  if (!found)
    return {};
  return uniquePorts(inputs ? *found->inputs() : *found->outputs());
}

static dshard_port_t portOf(dshard_plan_t *plan, uint32_t entry, bool inputs,
                            uint32_t index) {
  std::vector<const plan::Port *> ports = portsOf(plan, entry, inputs);
  if (index >= ports.size())
    return {"", DSHARD_BOOL, 0, nullptr, 0};
  const plan::Port &port = *ports[index];
  const plan::TensorType &type = *port.global();
  return {textOf(plan, port.name()), static_cast<dshard_dtype_t>(type.dtype()),
          static_cast<int32_t>(type.dims()->size()), type.dims()->data(),
          port.finite() && port.finite()->size()};
}

uint32_t dshard_plan_inputs(dshard_plan_t *plan, uint32_t entry) {
  return static_cast<uint32_t>(portsOf(plan, entry, true).size());
}
uint32_t dshard_plan_outputs(dshard_plan_t *plan, uint32_t entry) {
  return static_cast<uint32_t>(portsOf(plan, entry, false).size());
}
dshard_port_t dshard_plan_input(dshard_plan_t *plan, uint32_t entry,
                                uint32_t index) {
  return portOf(plan, entry, true, index);
}
dshard_port_t dshard_plan_output(dshard_plan_t *plan, uint32_t entry,
                                 uint32_t index) {
  return portOf(plan, entry, false, index);
}
uint32_t dshard_plan_scalars(dshard_plan_t *plan) {
  return plan->reader->plan().scalars()->size();
}
const char *dshard_plan_scalar(dshard_plan_t *plan, uint32_t index) {
  if (index >= dshard_plan_scalars(plan))
    return "";
  return textOf(plan, plan->reader->plan().scalars()->Get(index)->name());
}

//===----------------------------------------------------------------------===//
// Sessions
//===----------------------------------------------------------------------===//

char *dshard_session_create(const char *path,
                            const dshard_session_options_t *options,
                            dshard_session_t **session) {
  auto reader = plan::Reader::open(path);
  if (!reader)
    return toError(reader.status());
  SessionOptions chosen;
  if (options) {
    if (options->weights)
      chosen.weights.folder = options->weights;
    if (options->random_weights)
      chosen.weights.seed = options->seed;
    chosen.threads = options->threads;
  }
  auto made = Session::create(std::move(*reader), chosen);
  if (!made)
    return toError(made.status());
  auto *result = new dshard_session_t{std::move(*made), {}};
  const plan::Reader &plan = result->session->plan();
  const auto &states = *plan.plan().states();
  for (uint32_t i = 0; i < states.size(); ++i)
    if (states.Get(i)->layout() == plan::StateLayout::plain)
      result->states.push_back({i,
                                std::string(plan.string(states.Get(i)->name())),
                                result->session->stateDims(i)});
  *session = result;
  return nullptr;
}

void dshard_session_destroy(dshard_session_t *session) { delete session; }

char *dshard_session_load(dshard_session_t *session) {
  return toError(session->session->load());
}

char *dshard_session_set_scalar(dshard_session_t *session, const char *name,
                                double value) {
  return toError(session->session->setScalar(name, value));
}

char *dshard_session_bind(dshard_session_t *session, const char *entry,
                          const char *name, void *data) {
  return toError(session->session->bind(entry, name, data));
}

char *dshard_session_run(dshard_session_t *session, const char *entry,
                         const dshard_tensor_t *inputs, uint32_t input_count,
                         const dshard_tensor_t *outputs,
                         uint32_t output_count) {
  Session &ranks = *session->session;
  Session::NamedTensors views;
  for (uint32_t i = 0; i < input_count; ++i) {
    const dshard_tensor_t &tensor = inputs[i];
    views.emplace_back(tensor.name,
                       TensorView{static_cast<plan::DataType>(tensor.dtype),
                                  {tensor.dims, tensor.dims + tensor.rank},
                                  tensor.data});
  }
  for (uint32_t i = 0; i < output_count; ++i) {
    const dshard_tensor_t &tensor = outputs[i];
    auto port = ranks.findPort(entry, /*input=*/false, tensor.name);
    if (!port)
      return toError(port.status());
    const plan::TensorType &type = *(*port)->global();
    std::vector<int64_t> wanted(tensor.dims, tensor.dims + tensor.rank);
    std::vector<int64_t> dims(type.dims()->begin(), type.dims()->end());
    if (static_cast<int>(type.dtype()) != tensor.dtype || wanted != dims)
      return toError(Status::error(
          std::string("output '") + tensor.name + "' is " +
          plan::EnumNameDataType(type.dtype()) + dimsText(dims) +
          ", the memory given for it is " +
          plan::EnumNameDataType(static_cast<plan::DataType>(tensor.dtype)) +
          dimsText(wanted)));
  }
  Status status = ranks.setInputs(entry, views);
  if (status)
    status = ranks.execute(entry);
  for (uint32_t i = 0; i < output_count && status.ok(); ++i)
    status = ranks.getOutput(entry, outputs[i].name, outputs[i].data);
  return toError(status);
}

char *dshard_session_not_finite(dshard_session_t *session, const char *entry,
                                int32_t *skipped) {
  std::vector<Session::NotFinite> found =
      session->session->findNotFinite(entry);
  if (found.empty())
    return nullptr;
  *skipped = found[0].skipped;
  return ::strdup(notFiniteText(found).c_str());
}

uint32_t dshard_session_states(dshard_session_t *session) {
  return static_cast<uint32_t>(session->states.size());
}

dshard_port_t dshard_session_state(dshard_session_t *session, uint32_t index) {
  if (index >= session->states.size())
    return {"", DSHARD_BOOL, 0, nullptr, 0};
  const dshard_session_t::State &state = session->states[index];
  const plan::State &stored =
      *session->session->plan().plan().states()->Get(state.index);
  return {state.name.c_str(),
          static_cast<dshard_dtype_t>(stored.global()->dtype()),
          static_cast<int32_t>(state.dims.size()), state.dims.data(), 0};
}

char *dshard_session_get_state(dshard_session_t *session, uint32_t index,
                               void *data) {
  if (index >= session->states.size())
    return toError(Status::error("no state " + std::to_string(index)));
  return toError(
      session->session->getState(session->states[index].index, data));
}
