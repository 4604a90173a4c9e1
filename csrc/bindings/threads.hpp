// Independent tasks on several threads: the one place where the extension starts a thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace hesskern::bindings {

// Runs task(k, worker) for every k in [0, tasks), `threads` at a time; worker < threads tells which thread runs it. The
// calling thread takes part. If no more threads can be started, the running ones do the rest. After an exception no
// further task starts, and it is thrown again here: an exception that leaves a thread would end the process.
template <class Task>
void run_tasks(std::int64_t tasks, std::int64_t threads, const Task &task) {
    std::atomic<std::int64_t> next = 0;
    std::atomic<bool> failed = false;
    std::exception_ptr failure;
    const auto work = [&](std::int64_t worker) noexcept {
        try {
            for (std::int64_t k = next++; k < tasks && !failed; k = next++) task(k, worker);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> helpers;
        const std::int64_t wanted = std::min(threads, tasks);
        try {
            for (std::int64_t worker = 1; worker < wanted; ++worker) helpers.emplace_back(work, worker);
        } catch (const std::exception &) {  // no thread, or no memory for one
        }
        work(0);
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace hesskern::bindings
