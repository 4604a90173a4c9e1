// Which instruction set to run, decided once.
#include <cstring>

#include "kernels/table.hpp"

namespace hesskern {

namespace baseline {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}

namespace {

constexpr int most_tables = 4;

struct Available {
    const Kernels *table[most_tables] = {};
    const char *name[most_tables] = {};
    Available() {
        int count = 0;
        const auto add = [&](const Kernels &kernels) {
            table[count] = &kernels;
            name[count++] = kernels.name;
        };
#if defined(HESSKERN_HAS_avx512)
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
            add(avx512::table);
#endif
#if defined(HESSKERN_HAS_avx2)
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) add(avx2::table);
#endif
        add(baseline::table);
    }
};

const Available &available() {
    static const Available found;
    return found;
}

}  // namespace

const char *const *available_kernels() { return available().name; }

const Kernels *choose_kernels(const char *requested, const char **reason) {
    const Available &found = available();
    if (!requested || !*requested) return found.table[0];
    for (int k = 0; found.name[k]; ++k)
        if (std::strcmp(requested, found.name[k]) == 0) return found.table[k];
    *reason = "this build or this processor does not have it";
    return nullptr;
}

}  // namespace hesskern
