// Arguments of the selection's operations, for the register_*.cpp files.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "arguments.h"
#include "select.h"

inline dualfast::Column column_of(const py::object& array, const char* name, py::ssize_t count) {
    if (Dense<float>::check_(array)) return {optional_data<float>(array, name, count), false};
    return {optional_data<double>(array, name, count), true};
}

// numbers: (count,) of uint16 or int32, or None; allowed: a bitmap or None.
inline dualfast::Groups groups_of(const py::object& numbers, int64_t n_groups, const py::object& allowed,
                                  int64_t count) {
    const bool narrow = Dense<uint16_t>::check_(numbers);
    return {n_groups, narrow ? optional_data<uint16_t>(numbers, "numbers", count) : nullptr,
            narrow ? nullptr : optional_data<int32_t>(numbers, "numbers", count),
            optional_data<uint8_t>(allowed, "allowed", (count + 7) / 8)};
}

// The vector as an array that owns it, without a copy.
template <class T>
Dense<T> array_of(std::vector<T>&& values) {
    auto* moved = new std::vector<T>(std::move(values));
    const py::capsule owner(moved, [](void* vector) { delete static_cast<std::vector<T>*>(vector); });
    return Dense<T>(static_cast<py::ssize_t>(moved->size()), moved->data(), owner);
}
