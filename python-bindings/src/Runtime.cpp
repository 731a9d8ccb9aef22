//===- Runtime.cpp - The module dshard._runtime ---------------------------===//
//
// Thin: handles with destructors, errors as exceptions, and calls that take
// long without the GIL. What people use is dshard/_plan.py.
//
//===----------------------------------------------------------------------===//

#include "dshard/CAPI/Runtime.h"
#include "Calls.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <mutex>

namespace nb = nanobind;
using namespace dshard::python;

namespace {
/// Name, dtype, dims, and whether it is only a check.
using PortTuple = std::tuple<std::string, int, std::vector<int64_t>, bool>;
/// Name, dtype, dims, and the address of dense memory in host order.
using TensorTuple =
    std::tuple<std::string, int, std::vector<int64_t>, uintptr_t>;

PortTuple toTuple(const dshard_port_t &port) {
  return {port.name,
          port.dtype,
          {port.dims, port.dims + port.rank},
          port.is_check != 0};
}

class Plan {
public:
  explicit Plan(const std::string &path) {
    check(dshard_plan_open(path.c_str(), &plan));
  }
  ~Plan() { dshard_plan_close(plan); }
  Plan(const Plan &) = delete;

  using Text = char *(*)(dshard_plan_t *, char **);
  template <Text function> std::string text() {
    char *result = nullptr;
    check(function(plan, &result));
    return take(result);
  }
  void verify() {
    char *error = nullptr;
    Calls::run([&] { error = dshard_plan_verify(plan); });
    check(error);
  }
  uint32_t ranks() { return dshard_plan_ranks(plan); }
  std::string target() { return dshard_plan_target(plan); }
  std::vector<std::string> scalars() {
    std::vector<std::string> names;
    for (uint32_t i = 0; i < dshard_plan_scalars(plan); ++i)
      names.push_back(dshard_plan_scalar(plan, i));
    return names;
  }
  /// Name, inputs, outputs of each entry point.
  std::vector<
      std::tuple<std::string, std::vector<PortTuple>, std::vector<PortTuple>>>
  entries() {
    std::vector<
        std::tuple<std::string, std::vector<PortTuple>, std::vector<PortTuple>>>
        result;
    for (uint32_t entry = 0; entry < dshard_plan_entries(plan); ++entry) {
      std::vector<PortTuple> inputs, outputs;
      for (uint32_t i = 0; i < dshard_plan_inputs(plan, entry); ++i)
        inputs.push_back(toTuple(dshard_plan_input(plan, entry, i)));
      for (uint32_t i = 0; i < dshard_plan_outputs(plan, entry); ++i)
        outputs.push_back(toTuple(dshard_plan_output(plan, entry, i)));
      result.emplace_back(dshard_plan_entry(plan, entry), std::move(inputs),
                          std::move(outputs));
    }
    return result;
  }

private:
  dshard_plan_t *plan = nullptr;
};

/// A handle is used by one thread at a time: the mutex, taken without the GIL.
/// It belongs to the process that made it: a forked child has no ranks.
class Session {
public:
  Session(const std::string &path, const std::optional<std::string> &weights,
          std::optional<uint64_t> seed, uint32_t threads) {
    dshard_session_options_t options = {weights ? weights->c_str() : nullptr,
                                        seed.has_value(), seed.value_or(0),
                                        threads};
    call([&] {
      return dshard_session_create(path.c_str(), &options, &session);
    });
  }
  ~Session() {
    if (::getpid() != process)
      return; // the threads to wait for are the parent's
    Calls::run([&] { dshard_session_destroy(session); });
  }
  Session(const Session &) = delete;

  void load() {
    call([&] { return dshard_session_load(session); });
  }

  /// Sets the scalars, runs once, and gives what was not finite, with whether
  /// the step was skipped.
  std::optional<std::pair<std::string, bool>>
  run(const std::string &entry, const std::vector<TensorTuple> &inputs,
      const std::vector<TensorTuple> &outputs,
      const std::vector<std::pair<std::string, double>> &scalars) {
    std::vector<dshard_tensor_t> given = views(inputs), wanted = views(outputs);
    char *notFinite = nullptr;
    int32_t skipped = 0;
    call([&]() -> char * {
      for (const auto &[name, value] : scalars)
        if (char *error =
                dshard_session_set_scalar(session, name.c_str(), value))
          return error;
      if (char *error = dshard_session_run(
              session, entry.c_str(), given.data(),
              static_cast<uint32_t>(given.size()), wanted.data(),
              static_cast<uint32_t>(wanted.size())))
        return error;
      notFinite = dshard_session_not_finite(session, entry.c_str(), &skipped);
      return nullptr;
    });
    if (!notFinite)
      return std::nullopt;
    return std::make_pair(take(notFinite), skipped != 0);
  }

  std::vector<PortTuple> states() {
    std::vector<PortTuple> result;
    for (uint32_t i = 0; i < dshard_session_states(session); ++i)
      result.push_back(toTuple(dshard_session_state(session, i)));
    return result;
  }
  void getState(uint32_t index, uintptr_t address) {
    call([&] {
      return dshard_session_get_state(session, index,
                                      reinterpret_cast<void *>(address));
    });
  }

private:
  template <typename Function> void call(Function &&function) {
    if (::getpid() != process)
      raise("the session belongs to another process");
    char *error = nullptr;
    Calls::run([&] {
      std::lock_guard<std::mutex> lock(mutex);
      error = function();
    });
    check(error);
  }

  static std::vector<dshard_tensor_t>
  views(const std::vector<TensorTuple> &tensors) {
    std::vector<dshard_tensor_t> result;
    for (const auto &[name, dtype, dims, address] : tensors)
      result.push_back({name.c_str(), static_cast<dshard_dtype_t>(dtype),
                        static_cast<int32_t>(dims.size()), dims.data(),
                        reinterpret_cast<void *>(address)});
    return result;
  }

  const pid_t process = ::getpid();
  std::mutex mutex;
  dshard_session_t *session = nullptr;
};

/// A view of the bits of a bfloat16 tensor that has __dlpack__; None if it is
/// of another type.
nb::object bfloat16Bits(nb::ndarray<nb::ro, nb::device::cpu> tensor) {
  if (tensor.dtype().code !=
          static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat) ||
      tensor.dtype().bits != 16 || tensor.dtype().lanes != 1)
    return nb::none();
  std::vector<size_t> shape;
  std::vector<int64_t> strides;
  for (size_t dim = 0; dim < tensor.ndim(); ++dim) {
    shape.push_back(tensor.shape(dim));
    strides.push_back(tensor.stride(dim));
  }
  auto *owner = new nb::ndarray<nb::ro, nb::device::cpu>(tensor);
  nb::capsule keep(owner, [](void *kept) noexcept {
    delete static_cast<nb::ndarray<nb::ro, nb::device::cpu> *>(kept);
  });
  return nb::cast(nb::ndarray<nb::numpy, const uint16_t>(
      tensor.data(), shape.size(), shape.data(), keep, strides.data()));
}
} // namespace

NB_MODULE(_runtime, module) {
  module.doc() = "The runtime's C library; use the package's Plan.";
  // A daemon thread may hold a session when Python ends.
  nb::set_leak_warnings(false);
  Calls::endWithPython();
  module.def("bfloat16_bits", &bfloat16Bits);
  nb::class_<Plan>(module, "Plan")
      .def(nb::init<const std::string &>())
      .def("print", &Plan::text<dshard_plan_print>)
      .def("stat", &Plan::text<dshard_plan_stat>)
      .def("stat_json", &Plan::text<dshard_plan_stat_json>)
      .def("explain", &Plan::text<dshard_plan_explain>)
      .def("verify", &Plan::verify)
      .def("ranks", &Plan::ranks)
      .def("target", &Plan::target)
      .def("scalars", &Plan::scalars)
      .def("entries", &Plan::entries);
  nb::class_<Session>(module, "Session")
      .def(nb::init<const std::string &, const std::optional<std::string> &,
                    std::optional<uint64_t>, uint32_t>(),
           nb::arg("path"), nb::arg("weights").none(), nb::arg("seed").none(),
           nb::arg("threads"))
      .def("load", &Session::load)
      .def("run", &Session::run)
      .def("states", &Session::states)
      .def("get_state", &Session::getState);
}
