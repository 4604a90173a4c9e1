// One number of several networks, one network in each lane: with this type the kernels train all of them at once.
#pragma once

#include "kernels/simd.hpp"

namespace hesskern::HESSKERN_ISA {

struct Pack {
    Vector<double, lanes<double>> lane;

    Pack() = default;
    explicit Pack(double value) : lane(value - Vector<double, lanes<double>>{}) {}

    friend Pack operator+(Pack a, Pack b) { return a += b; }
    friend Pack operator-(Pack a, Pack b) { return a -= b; }
    friend Pack operator*(Pack a, Pack b) { return a *= b; }
    Pack &operator+=(Pack other) {
        lane += other.lane;
        return *this;
    }
    Pack &operator-=(Pack other) {
        lane -= other.lane;
        return *this;
    }
    Pack &operator*=(Pack other) {
        lane *= other.lane;
        return *this;
    }
};

template <>
struct TotalOf<Pack> {
    using type = Pack;
};

// Of factors that are the same for all networks.
template <>
inline bool is_zero(Pack value) {
    return value.lane[0] == 0;
}

}  // namespace hesskern::HESSKERN_ISA
