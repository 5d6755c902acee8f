#include "kernels/cuda/products/weight_loader.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/resources.hpp"

namespace tessera::kernels::cuda {
namespace {

constexpr std::int64_t kPieceBytes = std::int64_t{8} << 20;
constexpr unsigned kMaxThreads = 16;
constexpr std::int64_t kBf16Bytes = 2;

// Round to nearest, ties to even; NaN stays NaN.
std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) {
    return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  }
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// Element `i` of a row in float32 or float16. What nothing can be computed with is refused where
// each element is looked at anyway.
float element(const MatrixSlice& from, const std::byte* row, std::size_t i) {
  if (from.type == DType::kFloat32) {
    float value = 0;
    std::memcpy(&value, row + i * sizeof value, sizeof value);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, row + i * sizeof bits, sizeof bits);
  if (!is_finite_float16(bits)) {
    throw FatalError("weights: " + std::string(from.name) +
                     " holds NaN or infinity; download the model again");
  }
  return float16_value(bits);
}

void copy_row(std::byte* target, const MatrixSlice& from, const std::byte* row) {
  const auto count = static_cast<std::size_t>(from.cols);
  if (from.type == DType::kBFloat16) {
    std::memcpy(target, row, count * kBf16Bytes);
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t rounded = to_bf16(element(from, row, i));
    std::memcpy(target + i * kBf16Bytes, &rounded, kBf16Bytes);
  }
}

void copy_rows(std::byte* target, const MatrixSlice& source) {
  if (source.type == DType::kBFloat16 && source.row_stride == source.cols) {
    std::memcpy(target, source.data,
                static_cast<std::size_t>(source.rows * source.cols * kBf16Bytes));
    return;
  }
  const auto stride = static_cast<std::int64_t>(size_of(source.type)) * source.row_stride;
  for (std::int64_t row = 0; row < source.rows; ++row) {
    copy_row(target + row * source.cols * kBf16Bytes, source, source.data + row * stride);
  }
}

// Packed rows in page-locked memory to their places; a last incomplete group goes by itself.
void place_rows(const std::byte* packed, const MatrixSlice& rows, const RowPlacement& to,
                cudaStream_t stream) {
  const auto group_bytes = static_cast<std::size_t>(to.group * rows.cols * kBf16Bytes);
  const auto pitch_bytes = static_cast<std::size_t>(to.pitch * rows.cols * kBf16Bytes);
  const auto bytes = static_cast<std::size_t>(rows.rows * rows.cols * kBf16Bytes);
  if (to.group == to.pitch) {
    cuda_check(cudaMemcpyAsync(to.target, packed, bytes, cudaMemcpyHostToDevice, stream));
    return;
  }
  const std::size_t groups = bytes / group_bytes;
  CHECK(groups * group_bytes == bytes);
  cuda_check(cudaMemcpy2DAsync(to.target, pitch_bytes, packed, group_bytes, group_bytes, groups,
                               cudaMemcpyHostToDevice, stream));
}

unsigned num_threads() { return std::clamp(std::thread::hardware_concurrency(), 2U, kMaxThreads); }

constexpr std::size_t kBuffersPerThread = 2;

}  // namespace

std::size_t WeightLoader::page_locked_bytes() {
  return num_threads() * kBuffersPerThread * static_cast<std::size_t>(kPieceBytes);
}

WeightLoader::WeightLoader(int device) : device_(device) {
  for (unsigned i = 0; i < num_threads(); ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

WeightLoader::~WeightLoader() {
  const std::scoped_lock lock(mutex_);
  pieces_.clear();
  complete_ = true;
  filled_.notify_all();
}

void WeightLoader::copy(const MatrixSlice& source, const RowPlacement& placement) {
  CHECK(source.rows % placement.group == 0);
  const std::int64_t group_bytes = placement.group * source.cols * kBf16Bytes;
  // Stacked rows have no group to keep whole.
  const std::int64_t unit = placement.group == placement.pitch ? 1 : placement.group;
  const std::int64_t unit_bytes = group_bytes / placement.group * unit;
  const std::int64_t rows_per_piece =
      std::max<std::int64_t>(1, kPieceBytes / std::max<std::int64_t>(1, unit_bytes)) * unit;
  const auto row_bytes = static_cast<std::int64_t>(size_of(source.type)) * source.row_stride;
  const std::scoped_lock lock(mutex_);
  for (std::int64_t row = 0; row < source.rows; row += rows_per_piece) {
    Piece piece{.source = source, .placement = placement};
    piece.source.data += row * row_bytes;
    piece.source.rows = std::min(rows_per_piece, source.rows - row);
    piece.placement.target =
        static_cast<std::byte*>(placement.target) +
        row / unit * (unit == 1 ? 1 : placement.pitch) * source.cols * kBf16Bytes;
    pieces_.push_back(piece);
  }
  filled_.notify_all();
}

bool WeightLoader::next(Piece& piece) {
  std::unique_lock lock(mutex_);
  filled_.wait(lock, [&] { return !pieces_.empty() || complete_ || failure_ != nullptr; });
  if (pieces_.empty() || failure_ != nullptr) {
    return false;
  }
  piece = pieces_.front();
  pieces_.pop_front();
  return true;
}

void WeightLoader::copy_pieces() {
  cuda_check(cudaSetDevice(device_));
  const Stream stream = make_stream();
  struct Half {
    PinnedBuffer buffer{static_cast<std::size_t>(kPieceBytes), "the weight loader"};
    Event copied = make_event();
  };
  std::array<Half, kBuffersPerThread> halves;
  Piece piece;
  for (std::size_t i = 0; next(piece); ++i) {
    Half& half = halves[i % kBuffersPerThread];
    CHECK(piece.source.rows * piece.source.cols * kBf16Bytes <= kPieceBytes);
    cuda_check(cudaEventSynchronize(half.copied.get()));
    copy_rows(half.buffer.data(), piece.source);
    place_rows(half.buffer.data(), piece.source, piece.placement, stream.get());
    cuda_check(cudaEventRecord(half.copied.get(), stream.get()));
  }
  cuda_check(cudaStreamSynchronize(stream.get()));
}

void WeightLoader::work() {
  try {
    copy_pieces();
  } catch (...) {
    const std::scoped_lock lock(mutex_);
    if (failure_ == nullptr) {
      failure_ = std::current_exception();
    }
    filled_.notify_all();
  }
}

void WeightLoader::finish() {
  {
    const std::scoped_lock lock(mutex_);
    complete_ = true;
    filled_.notify_all();
  }
  threads_.clear();
  if (failure_ != nullptr) {
    std::rethrow_exception(failure_);
  }
}

}  // namespace tessera::kernels::cuda
