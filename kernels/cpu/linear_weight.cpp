#include "kernels/cpu/linear_weight.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "common/check.hpp"

namespace tessera::kernels::cpu {
namespace {

// Output features that one panel takes from one slice.
struct Cut {
  const MatrixSlice* slice = nullptr;  // of a pair: the gate; the up slice comes behind it
  std::int64_t first = 0;              // in the slice
  std::int64_t count = 0;
  std::int64_t row = 0;  // Panel::row
};

std::vector<Cut> cut_slices(const LinearSource& source) {
  const bool pair = source.layout == RowLayout::kGateUpPair;
  const std::int64_t step = pair ? kPanelWidth / 2 : kPanelWidth;
  std::vector<Cut> cuts;
  std::int64_t row = 0;
  for (std::size_t i = 0; i < (pair ? 1 : source.slices.size()); ++i) {
    const MatrixSlice& slice = source.slices[i];
    for (std::int64_t first = 0; first < slice.rows; first += step) {
      const std::int64_t count = std::min(step, slice.rows - first);
      cuts.push_back({.slice = &slice, .first = first, .count = count, .row = row});
      row += count;
    }
  }
  return cuts;
}

void check_source(const LinearSource& source) {
  const bool pair = source.layout == RowLayout::kGateUpPair;
  CHECK(!source.slices.empty() && (!pair || source.slices.size() == 2));
  for (const MatrixSlice& slice : source.slices) {
    if (slice.cols != source.slices[0].cols || (pair && slice.rows != source.slices[0].rows)) {
      throw FatalError("weights: the parts of " + source.name + " differ in shape");
    }
  }
}

// Round to nearest, ties to even; a NaN stays one.
std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
    return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  }
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float from_bf16(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

// What nothing can be computed with is refused where each element is looked at anyway.
float from_float16(std::uint16_t value, const MatrixSlice& slice) {
  if (!is_finite_float16(value)) {
    throw FatalError("weights: " + std::string(slice.name) +
                     " holds NaN or infinity; download the model again");
  }
  return float16_value(value);
}

// Mapped tensors may lie at any address, so elements are read by memcpy.
template <typename To, typename From, typename Convert>
void convert_row(std::byte* to, const std::byte* from, std::int64_t cols, Convert convert) {
  for (std::int64_t i = 0; i < cols; ++i) {
    From value;
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(From), sizeof(From));
    const To converted = convert(value);
    std::memcpy(to + static_cast<std::size_t>(i) * sizeof(To), &converted, sizeof(To));
  }
}

}  // namespace

void copy_rows(std::byte* to, DType type, const MatrixSlice& from, std::int64_t first,
               std::int64_t count) {
  const std::size_t row_bytes = static_cast<std::size_t>(from.cols) * size_of(type);
  for (std::int64_t row = first; row < first + count; ++row, to += row_bytes) {
    const std::byte* source =
        from.data + static_cast<std::size_t>(row * from.row_stride) * size_of(from.type);
    if (from.type == type) {
      std::memcpy(to, source, row_bytes);
    } else if (from.type == DType::kFloat16 && type == DType::kBFloat16) {
      convert_row<std::uint16_t, std::uint16_t>(
          to, source, from.cols, [&](std::uint16_t v) { return to_bf16(from_float16(v, from)); });
    } else if (from.type == DType::kFloat16) {
      convert_row<float, std::uint16_t>(to, source, from.cols,
                                        [&](std::uint16_t v) { return from_float16(v, from); });
    } else if (type == DType::kBFloat16) {
      convert_row<std::uint16_t, float>(to, source, from.cols, to_bf16);
    } else {
      convert_row<float, std::uint16_t>(to, source, from.cols, from_bf16);
    }
  }
}

std::unique_ptr<CpuLinearWeight> CpuLinearWeight::load(const LinearSource& source, DType type,
                                                       MatmulLibrary& library, Team& team) {
  check_source(source);
  const bool pair = source.layout == RowLayout::kGateUpPair;
  const std::vector<Cut> cuts = cut_slices(source);
  auto weight = std::make_unique<CpuLinearWeight>();
  weight->cols_ = source.slices[0].cols;
  if (source.norm) {
    CHECK(source.norm->cols == weight->cols_);
    weight->norm_ = AlignedBytes(static_cast<std::size_t>(weight->cols_) * sizeof(float));
    copy_rows(weight->norm_.data(), DType::kFloat32, *source.norm, 0, 1);
  }
  for (const MatrixSlice& slice : source.slices) {
    weight->rows_ += slice.rows;
  }
  weight->panels_.resize(cuts.size());
  std::vector<const PanelShape*> shapes(cuts.size());
  std::vector<std::size_t> offsets(cuts.size() + 1);
  // On a member, because oneDNN settles the number of threads when a product is made.
  const Team::Job prepare = [&](int member) {
    for (std::size_t i = 0; member == 0 && i < cuts.size(); ++i) {
      shapes[i] = library.prepare(pair ? 2 * cuts[i].count : cuts[i].count, weight->cols_);
      const std::size_t bytes = MatmulLibrary::packed_bytes(*shapes[i]);
      offsets[i + 1] = offsets[i] + (bytes + AlignedBytes::kAlignment - 1) /
                                        AlignedBytes::kAlignment * AlignedBytes::kAlignment;
    }
  };
  team.run(prepare);
  weight->packed_ = AlignedBytes(offsets.back());
  std::atomic<std::size_t> next{0};
  const Team::Job pack_some = [&](int) {
    AlignedBytes plain(static_cast<std::size_t>(kPanelWidth * weight->cols_) * size_of(type));
    for (std::size_t i = next++; i < cuts.size(); i = next++) {
      const Cut& cut = cuts[i];
      const std::size_t half = static_cast<std::size_t>(cut.count * weight->cols_) * size_of(type);
      copy_rows(plain.data(), type, *cut.slice, cut.first, cut.count);
      if (pair) {
        copy_rows(plain.data() + half, type, source.slices[1], cut.first, cut.count);
      }
      weight->panels_[i] =
          library.pack(shapes[i], cut.row, plain.data(), weight->packed_.data() + offsets[i]);
    }
  };
  team.run(pack_some);
  return weight;
}

}  // namespace tessera::kernels::cpu
