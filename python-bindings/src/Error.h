//===- Error.h - The C API's errors as Python exceptions --------*- C++ -*-===//
#ifndef DSHARD_PYTHON_ERROR_H
#define DSHARD_PYTHON_ERROR_H

#include <nanobind/nanobind.h>

#include <cstdlib>
#include <string>

namespace dshard::python {

/// dshard.Error, which dshard/_errors.py defines.
inline void raise(const std::string &text) {
  nanobind::object type =
      nanobind::module_::import_("dshard._errors").attr("Error");
  PyErr_SetString(type.ptr(), text.c_str());
  throw nanobind::python_error();
}

/// A text that the C API gave, which it is ours to free.
inline std::string take(char *text) {
  std::string result = text ? text : "";
  std::free(text);
  return result;
}

/// What a function of the C API returned. Needs the GIL.
inline void check(char *error) {
  if (error)
    raise(take(error));
}

} // namespace dshard::python

#endif // DSHARD_PYTHON_ERROR_H
