// The end of the process while calls are still running: those that Ctrl-C has left, and those of daemon threads.
#include <cstdio>
#include <cstdlib>

#if defined(__GLIBC__)
#include <unistd.h>
#endif

#include "bindings/gil.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

#if defined(__GLIBC__)
// Runs after Python has shut down and before libraries are unloaded: BLAS would free the memory that a call still uses,
// and the process would end with SIGSEGV instead of its exit code.
void leave_at_once(int status, void *) {
    if (!computing) return;
    std::fflush(nullptr);
    _exit(status);
}
#endif

}  // namespace

void bind_left_calls(py::module_ &module) {
#if defined(__GLIBC__)
    on_exit(leave_at_once, nullptr);
#endif
    module.def(
        "count_left_call", [](int change) { computing += change; }, py::arg("change"),
        "Add to the number of calls that compute on although nobody waits for them any more.");
}

}  // namespace hesskern::bindings
