//===- Status.h - Errors as values ------------------------------*- C++ -*-===//
//
// The layers below MLIR report errors by value: no exceptions, no aborts on
// anything that a user can cause.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_STATUS_H
#define DSHARD_SUPPORT_STATUS_H

#include <string>
#include <utility>
#include <variant>

namespace dshard {

/// Success, or one line of text for a person: lower case, no full stop, what,
/// where, the two numbers that disagree, a way out.
class [[nodiscard]] Status {
public:
  Status() = default;
  static Status error(std::string message) {
    Status status;
    status.failed = true;
    status.text = std::move(message);
    return status;
  }
  bool ok() const { return !failed; }
  explicit operator bool() const { return ok(); }
  const std::string &message() const { return text; }

private:
  bool failed = false;
  std::string text;
};

/// A value or the Status that says why there is none.
template <typename T> class [[nodiscard]] Result {
public:
  Result(T value) : content(std::move(value)) {}
  Result(Status status) : content(std::move(status)) {}
  bool ok() const { return std::holds_alternative<T>(content); }
  explicit operator bool() const { return ok(); }
  T &operator*() { return std::get<T>(content); }
  const T &operator*() const { return std::get<T>(content); }
  T *operator->() { return &std::get<T>(content); }
  const T *operator->() const { return &std::get<T>(content); }
  Status status() const { return ok() ? Status() : std::get<Status>(content); }

private:
  std::variant<Status, T> content;
};

} // namespace dshard

#endif // DSHARD_SUPPORT_STATUS_H
