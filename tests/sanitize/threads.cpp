// What several threads work on together, for ThreadSanitizer: selection, the training step and loading, each with 4
// threads and with 1, which must agree, and with a loading thread beside a training step as in a training. With the
// argument "digests" it prints a hash of each result instead, which every compiler and processor must agree on.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "images.h"
#include "philox.h"
#include "select.h"
#include "step.h"

namespace {

constexpr int64_t kSamples = 1 << 18;  // enough for parts_of to split them

void check(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "another result with several threads: %s\n", what);
    std::exit(1);
}

template <class T>
std::vector<T> random_values(size_t count, T low, T high, unsigned seed) {
    std::mt19937_64 engine(seed);
    std::vector<T> out(count);
    for (T& value : out) value = low + static_cast<T>(engine() % 10007) / static_cast<T>(10007) * (high - low);
    return out;
}

std::vector<int64_t> random_ids(size_t count, int64_t below, unsigned seed) {
    std::mt19937_64 engine(seed);
    std::vector<int64_t> out(count);
    for (int64_t& value : out) value = static_cast<int64_t>(engine() % static_cast<uint64_t>(below));
    return out;
}

// ---- selection ------------------------------------------------------------------------------------------------------

struct Selected {
    std::vector<uint8_t> bits, below;
    std::vector<int64_t> positions, largest, sizes, counts, histogram, n_below;
    std::vector<uint64_t> low, high;
    std::vector<uint16_t> strata;
    int64_t outside;
    bool operator==(const Selected& o) const {
        return bits == o.bits && below == o.below && positions == o.positions && largest == o.largest &&
               sizes == o.sizes && counts == o.counts && histogram == o.histogram && n_below == o.n_below &&
               low == o.low && high == o.high && strata == o.strata && outside == o.outside;
    }
};

Selected select(int threads) {
    const auto score = random_values<float>(kSamples, 0, 1, 1), mean = random_values<float>(kSamples, 0, 1, 2);
    const auto labels = random_ids(kSamples, 5, 3);
    const size_t bytes = kSamples / 8;
    std::vector<uint16_t> numbers(kSamples);
    const auto of_each = dualfast::number_labels(nullptr, labels.data(), kSamples, threads, numbers.data());
    dualfast::Groups groups;
    groups.count = static_cast<int64_t>(of_each.size());
    groups.narrow = numbers.data();
    const auto n_groups = static_cast<size_t>(groups.count);

    Selected out;
    out.sizes.resize(n_groups);
    dualfast::count_groups(groups, kSamples, threads, out.sizes.data());
    const dualfast::Race race{{mean.data(), false}, {score.data(), false}, nullptr, 0, kSamples, 2.0, 3.0, 7, threads};
    out.bits.resize(bytes);
    std::vector<char> touched(1 << 20);
    const std::vector<double> low(n_groups, -0.5), high(n_groups, 0.5);
    const auto classified = dualfast::classify(race, groups, low.data(), high.data(), 0, out.bits.data(),
                                               {touched.data(), static_cast<int64_t>(touched.size())});
    out.n_below = classified.n_below, out.positions = classified.undecided;
    constexpr int64_t kBins = 64;
    std::vector<double> edges(kBins + 1), keys(kSamples);
    out.counts.resize(n_groups * kBins);
    dualfast::key_histogram(race, groups, -10, 10, 0, kBins, out.counts.data(), edges.data());
    dualfast::race_keys(race, nullptr, kSamples, keys.data());

    const dualfast::Ranking ranking{{score.data(), false}, kSamples, false, 0, groups, threads};
    out.histogram.resize(n_groups << 8);
    dualfast::digit_histogram(ranking, {}, 24, 8, groups.count, out.histogram.data());
    const std::vector<uint64_t> least(n_groups, 0);
    out.low.resize(n_groups), out.high.resize(n_groups);
    dualfast::extents(ranking, least.data(), out.low.data(), out.high.data());
    std::vector<uint64_t> middle;
    for (size_t g = 0; g < n_groups; ++g) middle.push_back(out.low[g] / 2 + out.high[g] / 2);
    const std::vector<int64_t> ties(n_groups, 0);
    const dualfast::Cuts cuts{1, middle.data(), ties.data()};
    out.below.resize(bytes);
    dualfast::mark_below(ranking, cuts, out.below.data());
    out.strata.resize(kSamples);
    dualfast::stratify(ranking, cuts, nullptr, out.strata.data(), nullptr);
    out.outside = dualfast::outside({score.data(), false}, kSamples, 0.1, 0.9, threads, out.bits.data()).count;
    out.largest = dualfast::largest({score.data(), false}, kSamples, 50, threads);
    std::vector<int64_t> found(static_cast<size_t>(dualfast::count_bits(out.below.data(), kSamples / 8)));
    dualfast::positions(out.below.data(), kSamples / 8, static_cast<int64_t>(found.size()), found.data(), threads);
    out.positions.insert(out.positions.end(), found.begin(), found.end());
    return out;
}

// ---- the training step ----------------------------------------------------------------------------------------------

// Two steps over samples that repeat, then observe(): the lines and the losses. odd: the value of one logit.
std::vector<float> train(int64_t classes, int threads, float odd = std::nanf("")) {
    constexpr int64_t kRows = 4096, kTable = 3000;
    const dualfast::Line layout{dualfast::kLineWords, 10, 4000};
    auto logits = random_values<float>(static_cast<size_t>(kRows * classes), -4, 4, 4);
    logits[5] = odd;
    std::vector<float> grad(logits.size()), loss(kRows), sums(kTable), margins(kTable), late(kTable), seen(4 * kRows);
    std::vector<int32_t> lines(static_cast<size_t>(kTable * layout.words)), votes(kTable), others(kRows);
    std::vector<uint8_t> flags(kRows);
    const auto targets = random_ids(kRows, classes, 5);
    dualfast::Step args{};
    args.logits = logits.data(), args.grad = grad.data(), args.logits_stride = args.grad_stride = classes;
    args.targets = targets.data(), args.loss = loss.data(), args.scale = 1, args.mean = true;
    args.rows = kRows, args.classes = classes, args.samples = kTable, args.ignore_index = -100;
    args.lines = lines.data(), args.layout = layout, args.loss_sums = sums.data();
    args.prob_margin_sums = margins.data(), args.late_margin_sums = late.data(), args.votes = votes.data();
    args.seen = seen.data(), args.flags = flags.data(), args.top_others = others.data();
    args.by_products = true, args.threads = threads;
    for (unsigned epoch = 0; epoch < 2; ++epoch) {
        const auto index = random_ids(kRows, kTable, 6 + epoch);
        args.index = index.data();
        dualfast::step(args);
    }
    const auto index = random_ids(kRows, kTable, 8);
    const std::vector<uint8_t> correct(kRows, 1);
    const auto p = random_values<float>(kRows, 0, 1, 9);
    dualfast::observe({p.data(), p.data(), p.data(), p.data(), correct.data(), nullptr, index.data(), kRows, kTable,
                       lines.data(), layout, threads});
    std::vector<float> out(loss);
    out.resize(loss.size() + lines.size());
    std::memcpy(out.data() + loss.size(), lines.data(), lines.size() * 4);
    return out;
}

// ---- loading --------------------------------------------------------------------------------------------------------

// Raw images, and those that are not the JPEGs they claim to be, of a file.
std::vector<uint8_t> load(int threads) {
    constexpr size_t kImages = 64;
    constexpr int32_t kOut = 24;
    constexpr uint16_t kHeight = 40, kWidth = 32;
    constexpr size_t kBytes = size_t{kHeight} * kWidth * 3;
    const int fd = memfd_create("images", 0);
    std::vector<uint8_t> pixels(kImages * kBytes);
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 2654435761U >> 24);
    check(pwrite(fd, pixels.data(), pixels.size(), 0) == static_cast<ssize_t>(pixels.size()), "writing");
    std::vector<uint64_t> ptr, size(kImages, kBytes);
    std::vector<int64_t> ids;
    std::vector<uint8_t> mode(kImages, dualfast::kRaw);
    const std::vector<uint16_t> heights(kImages, kHeight), widths(kImages, kWidth);
    for (size_t i = 0; i < kImages; ++i) ptr.push_back(i * kBytes), mode[i] = i % 8 != 0, ids.push_back(int64_t(i));
    std::vector<dualfast::Box> boxes(kImages);
    for (size_t i = 0; i < kImages; ++i) boxes[i] = {int32_t(i % 9) - 4, int32_t(i % 5) - 2, 33, 30, int32_t(i & 1)};
    const dualfast::Samples samples{kImages,        ptr.data(),    size.data(), mode.data(),
                                    heights.data(), widths.data(), boxes.data()};
    std::vector<uint8_t> out(kImages * kOut * kOut * 3), table(3 * 256), fill(3);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<uint8_t>(i);
    const dualfast::Output output{out.data(), kOut, kOut, 1, table.data(), fill.data()};
    std::vector<int32_t> status(kImages);
    dualfast::load_images(fd, samples, output, {1 << 26, 100}, threads, status.data());
    std::vector<const uint8_t*> decoded(kImages);
    for (size_t i = 0; i < kImages; ++i) {
        if (status[i] == dualfast::kUndecoded) decoded[i] = pixels.data() + i * kBytes;
    }
    dualfast::place_images(decoded.data(), samples, output, threads);
    close(fd);
    return out;
}

// ---- digests --------------------------------------------------------------------------------------------------------

// Order keys and the crops of each kind, of the same ids.
std::vector<int64_t> draws() {
    constexpr size_t kIds = 1001;
    const auto ids = random_ids(kIds, int64_t{1} << 40, 10);
    std::vector<uint64_t> keys(kIds);
    dualfast::order_keys(ids.data(), kIds, 11, 12, keys.data());
    std::vector<int64_t> out(keys.begin(), keys.end());
    std::vector<uint16_t> heights(kIds), widths(kIds);
    for (size_t i = 0; i < kIds; ++i) {
        heights[i] = static_cast<uint16_t>(1 + ids[i] % 700), widths[i] = static_cast<uint16_t>(1 + ids[i] % 501);
    }
    const std::pair<const char*, std::array<double, 4>> crops[] = {
        {"center", {0.875}}, {"pad", {4}}, {"resized", {0.08, 1, 0.75, 4.0 / 3}}};
    for (const auto& [name, parameters] : crops) {
        const dualfast::CropKind* kind = dualfast::find_crop_kind(name);
        check(kind != nullptr, name);
        const dualfast::CropSpec spec{true, 224, 192, parameters.data()};
        std::vector<dualfast::Box> boxes(kIds);
        dualfast::crop_boxes(ids.data(), heights.data(), widths.data(), kIds, *kind, spec, 13, 14, boxes.data());
        for (const auto& box : boxes) {
            out.insert(out.end(), {box.top, box.left, box.height, box.width, box.flip});
        }
    }
    return out;
}

template <class T>
void print_digest(const char* what, const std::vector<T>& values) {
    uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
    for (size_t i = 0; i < values.size() * sizeof(T); ++i) {
        hash = (hash ^ reinterpret_cast<const uint8_t*>(values.data())[i]) * 0x100000001B3;
    }
    std::printf("%s %016llx\n", what, static_cast<unsigned long long>(hash));
}

int print_digests() {
    const Selected selected = select(2);
    print_digest("bits", selected.bits), print_digest("below", selected.below);
    print_digest("positions", selected.positions), print_digest("largest", selected.largest);
    print_digest("counts", selected.counts), print_digest("histogram", selected.histogram);
    print_digest("extents", selected.low), print_digest("strata", selected.strata);
    // Without NaN, whose sign each processor chooses.
    for (const int64_t classes : {10, 300}) print_digest("step", train(classes, 2, 1e30F));
    print_digest("images", load(2));
    print_digest("draws", draws());
    return 0;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace

int main(int n_arguments, char**) {
    if (n_arguments > 1) return print_digests();
    check(select(4) == select(1), "selection");
    for (const int64_t classes : {10, 300}) check(same_bits(train(classes, 4), train(classes, 1)), "the step");
    check(same_bits(load(4), load(1)), "loading");
    std::thread loading([] { load(2); });  // as Loader does while the caller trains and selects
    train(10, 2);
    select(2);
    loading.join();
    std::puts("threads: the same results with 4 threads as with 1");
}
