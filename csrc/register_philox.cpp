#include "arguments.h"
#include "philox.h"

namespace {

Dense<uint64_t> order_keys(const Dense<int64_t>& ids, uint64_t seed, uint32_t epoch) {
    Dense<uint64_t> keys(ids.size());
    uint64_t* out = keys.mutable_data();
    const int64_t* id = ids.data();
    const auto n = static_cast<size_t>(ids.size());
    py::gil_scoped_release release;
    dualfast::order_keys(id, n, seed, epoch, out);
    return keys;
}

}  // namespace

void register_philox(py::module_& m) {
    m.def("order_keys", &order_keys, py::arg("ids").noconvert(), py::arg("seed"), py::arg("epoch"));
}
