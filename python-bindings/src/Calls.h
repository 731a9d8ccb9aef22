//===- Calls.h - Calling the C API from Python ------------------*- C++ -*-===//
//
// Errors as exceptions, and calls that take long without the GIL.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PYTHON_CALLS_H
#define DSHARD_PYTHON_CALLS_H

#include <nanobind/nanobind.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>

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

/// The calls of this module that run without the GIL. A thread that comes back
/// for the GIL while Python ends is ended by pthread_exit, which no C++ frame
/// survives; so Python's end waits for calls (`end`, by atexit), and a daemon
/// thread that begins one after that waits for the end of the process.
class Calls {
public:
  /// Runs `function`, which may not touch Python.
  template <typename Function> static void run(Function &&function) {
    Calls &calls = get();
    if (calls.isEndedByThisThread())
      return function(); // destructors and later atexit functions
    PyThreadState *thread = PyEval_SaveThread();
    {
      std::unique_lock<std::mutex> lock(calls.mutex);
      calls.changed.wait(lock, [&] { return !calls.ended; });
      ++calls.running;
    }
    function();
    PyEval_RestoreThread(thread);
    {
      std::lock_guard<std::mutex> lock(calls.mutex);
      --calls.running;
    }
    calls.changed.notify_all();
  }

  /// To be called once by each module.
  static void endWithPython() {
    nanobind::module_::import_("atexit").attr("register")(
        nanobind::cpp_function(&end));
  }

private:
  static Calls &get() {
    static Calls *calls = new Calls; // threads may wait in it to the very end
    return *calls;
  }
  bool isEndedByThisThread() {
    std::lock_guard<std::mutex> lock(mutex);
    return ended && ender == std::this_thread::get_id();
  }
  static void end() {
    Calls &calls = get();
    if (::getpid() != calls.process)
      return; // what runs are the parent's threads
    PyThreadState *thread = PyEval_SaveThread();
    {
      std::unique_lock<std::mutex> lock(calls.mutex);
      calls.ended = true;
      calls.ender = std::this_thread::get_id();
      calls.changed.wait(lock, [&] { return calls.running == 0; });
    }
    PyEval_RestoreThread(thread);
  }

  const pid_t process = ::getpid();
  std::mutex mutex;
  std::condition_variable changed;
  unsigned running = 0;
  bool ended = false;
  std::thread::id ender;
};

} // namespace dshard::python

#endif // DSHARD_PYTHON_CALLS_H
