//===- Compiler.cpp - The module dshard._compiler -------------------------===//

#include "dshard/CAPI/Compiler.h"
#include "Calls.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace nb = nanobind;
using namespace dshard::python;

using Option = std::pair<std::string, std::optional<std::string>>;

/// The lines that the compiler said beside an error.
static std::string compile(const std::string &model,
                           const std::vector<Option> &options,
                           const std::string &output) {
  std::vector<dshard_option_t> flags;
  for (const auto &[name, value] : options)
    flags.push_back({name.c_str(), value ? value->c_str() : nullptr});
  char *messages = nullptr, *error = nullptr;
  Calls::run([&] {
    error = dshard_compile(model.c_str(), flags.data(),
                           static_cast<uint32_t>(flags.size()), output.c_str(),
                           &messages);
  });
  std::string said = take(messages);
  check(error);
  return said;
}

NB_MODULE(_compiler, module) {
  module.doc() = "The compiler's C library; use the package's functions.";
  Calls::endWithPython();
  module.def("compile", &compile, nb::arg("model"), nb::arg("options"),
             nb::arg("output"));
}
