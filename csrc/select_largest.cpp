// The k largest values of a column, for a small k.
#include <algorithm>
#include <utility>

#include "select_block.h"

namespace dualfast {
namespace {

template <class T>
INLINE bool any_above(const T* values, int n, T bound) {
    int found = 0;
    for (int i = 0; i < n; ++i) found |= values[i] > bound;
    return found;
}
INLINE bool block_above_at_level(const Column& column, int64_t first, int n, double bound) {
    if (column.is_double) return any_above(static_cast<const double*>(column.data) + first, n, bound);
    return any_above(static_cast<const float*>(column.data) + first, n, static_cast<float>(bound));
}
AT_LEVELS(bool, block_above, (const Column& column, int64_t first, int n, double bound), (column, first, n, bound))

using Entry = std::pair<double, int64_t>;  // minus the value, position: ascending is best first

// The k best entries so far.
struct Best {
    int64_t k = 0;
    std::vector<Entry> entries;

    bool full() const { return static_cast<int64_t>(entries.size()) == k; }
    double bound() const { return -entries.back().first; }  // lower values do not get in

    void add(const Entry& entry) {
        if (entry.first != entry.first) return;  // NaN
        if (full()) {
            if (entry >= entries.back()) return;
            entries.pop_back();
        }
        entries.insert(std::upper_bound(entries.begin(), entries.end(), entry), entry);
    }
};

void add_block(const Column& column, int64_t first, int n, Best& best) {
    constexpr int64_t kRun = 32;  // samples that are skipped together where none is above the bound
    const bool full = best.full();
    if (full && !block_above(column, first, n, best.bound())) return;
    const int64_t last = first + n;
    for (int64_t i = first; i < last; ++i) {
        if (full && i + kRun <= last && !block_above(column, i, kRun, best.bound())) {
            i += kRun - 1;
            continue;
        }
        WITH_VALUES(column, i, best.add({-static_cast<double>(*values), i}));
    }
}

}  // namespace

std::vector<int64_t> largest(Column column, int64_t count, int64_t k, int threads) {
    if (k < 1) return {};
    const int64_t parts = parts_of(count, threads);
    std::vector<Best> best(static_cast<size_t>(parts), Best{k, {}});
    for_blocks(count, parts, threads, [&](int64_t part, int64_t first, int n) {
        prefetch(column, first + 4 * kBlock, count);
        add_block(column, first, n, best[static_cast<size_t>(part)]);
    });
    std::vector<Entry> all;
    for (const Best& part : best) all.insert(all.end(), part.entries.begin(), part.entries.end());
    std::sort(all.begin(), all.end());
    if (static_cast<int64_t>(all.size()) > k) all.resize(static_cast<size_t>(k));
    std::vector<int64_t> positions;
    for (const Entry& entry : all) positions.push_back(entry.second);
    return positions;
}

}  // namespace dualfast
