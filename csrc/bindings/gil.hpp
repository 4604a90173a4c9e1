// Releases the GIL while a kernel runs, in a way that survives the end of the interpreter.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace hesskern::bindings {

// How many calls compute without the GIL, those of NumPy and SciPy that Ctrl-C has left included (left_calls.cpp).
inline std::atomic<int> computing = 0;

// While it lives, the thread does not hold the GIL. A call that Ctrl-C has left (_base/interrupt.py) may end while
// Python shuts down: taking the GIL then ends the thread by an exception, which must not leave a destructor and would
// end the process with SIGABRT. Such a thread waits here instead, as Python itself does from 3.14 on.
class WithoutGil {
  public:
    WithoutGil() : state_(PyEval_SaveThread()) { ++computing; }
    ~WithoutGil() {
        try {
            PyEval_RestoreThread(state_);
            --computing;
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    WithoutGil(const WithoutGil &) = delete;
    WithoutGil &operator=(const WithoutGil &) = delete;

  private:
    PyThreadState *state_;
};

}  // namespace hesskern::bindings
