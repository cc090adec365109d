// Array arguments for the register_*.cpp files: C-contiguous, of one dtype, of a checked size.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

namespace py = pybind11;

// Bind such arguments with noconvert: pybind11 would otherwise copy an array of another dtype or layout silently.
template <class T>
using Dense = py::array_t<T, py::array::c_style>;

inline void check_size(const char* name, py::ssize_t size, py::ssize_t wanted) {
    if (size == wanted) return;
    throw py::value_error(std::string(name) + " holds " + std::to_string(size) + " values; it must hold " +
                          std::to_string(wanted));
}

// The data of an array of `wanted` elements, null for None.
template <class T>
T* optional_data(const py::object& array, const char* name, py::ssize_t wanted) {
    if (array.is_none()) return nullptr;
    if (!Dense<T>::check_(array)) throw py::type_error(std::string(name) + " has another dtype or is not contiguous");
    auto view = py::reinterpret_borrow<Dense<T>>(array);
    check_size(name, view.size(), wanted);
    return const_cast<T*>(view.data());
}
