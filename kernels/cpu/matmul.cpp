#include "kernels/cpu/matmul.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/check.hpp"
#include "kernels/cpu/onednn_compat.hpp"

namespace tessera::kernels::cpu {
namespace {

using dnnl::memory;

// Numbers of rows that are tried; the reference comes first.
constexpr std::int64_t kReferenceRows = 64;
constexpr std::int64_t kTriedRows[] = {64,  8,   16,  32,  48,  80,  96,  112, 128,
                                       144, 160, 176, 192, 208, 224, 240, 256};
static_assert(kTriedRows[0] == kReferenceRows && kReferenceRows <= kFilledRowsMax);
// So few rows are not cut into several products, each of which would read the whole panel.
constexpr std::int64_t kUncutRowsMax = 16;

memory::data_type data_type(DType type) {
  return type == DType::kBFloat16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc row_major(std::int64_t rows, std::int64_t cols, memory::data_type type) {
  return {{rows, cols}, type, memory::format_tag::ab};
}

// Memory objects of one member for one product; only their addresses change between calls.
struct Arguments {
  memory a, weights, c, scratch;
  std::unordered_map<int, memory> map;
  AlignedBytes scratch_bytes;
};

struct Step {
  dnnl::matmul matmul;
  std::vector<Arguments> arguments;  // one per member
};

}  // namespace

class PanelShape {
 public:
  std::int64_t width = 0;
  std::int64_t cols = 0;
  memory::desc packed;
  mutable std::map<std::int64_t, Step> steps;  // by rows; a member changes its own arguments only
};

struct MatmulLibrary::State {
  DType type;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::vector<dnnl::stream> streams;
  std::mutex mutex;  // Guards shapes.
  std::map<std::pair<std::int64_t, std::int64_t>, std::unique_ptr<PanelShape>> shapes;
};

namespace {

Step make_step(const dnnl::engine& engine, const dnnl::matmul::primitive_desc& description,
               std::size_t members) {
  Step step{.matmul = dnnl::matmul(description), .arguments = {}};
  for (std::size_t i = 0; i < members; ++i) {
    Arguments arguments;
    arguments.scratch_bytes = AlignedBytes(description.scratchpad_desc().get_size());
    arguments.a = memory(description.src_desc(), engine, DNNL_MEMORY_NONE);
    arguments.weights = memory(description.weights_desc(), engine, DNNL_MEMORY_NONE);
    arguments.c = memory(description.dst_desc(), engine, DNNL_MEMORY_NONE);
    arguments.scratch =
        memory(description.scratchpad_desc(), engine, arguments.scratch_bytes.data());
    // The map's handles share the memory objects above.
    arguments.map = {{DNNL_ARG_SRC, arguments.a},
                     {DNNL_ARG_WEIGHTS, arguments.weights},
                     {DNNL_ARG_DST, arguments.c},
                     {DNNL_ARG_SCRATCHPAD, arguments.scratch}};
    step.arguments.push_back(std::move(arguments));
  }
  return step;
}

// Equal rows of numbers in (-1, 1), of which every bit counts in a sum.
AlignedBytes some_rows(std::int64_t rows, std::int64_t cols, bool equal, DType type) {
  AlignedBytes bytes(static_cast<std::size_t>(rows * cols) * size_of(type));
  std::uint32_t state = 12345;
  for (std::int64_t i = 0; i < (equal ? 1 : rows) * cols; ++i) {
    state = state * 1664525 + 1013904223;
    const float value = static_cast<float>(static_cast<std::int32_t>(state)) / 2147483648.0F;
    if (type == DType::kBFloat16) {
      std::uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      bytes.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(bits >> 16);
    } else {
      bytes.as<float>()[i] = value;
    }
  }
  const std::size_t row_bytes = static_cast<std::size_t>(cols) * size_of(type);
  for (std::int64_t row = 1; equal && row < rows; ++row) {
    std::memcpy(bytes.data() + static_cast<std::size_t>(row) * row_bytes, bytes.data(), row_bytes);
  }
  return bytes;
}

}  // namespace

MatmulLibrary::MatmulLibrary(DType type, int members) : state_(std::make_unique<State>()) {
  state_->type = type;
  for (int i = 0; i < members; ++i) {
    state_->streams.emplace_back(state_->engine);
  }
}

MatmulLibrary::~MatmulLibrary() = default;

const PanelShape* MatmulLibrary::prepare(std::int64_t width, std::int64_t cols) {
  const std::lock_guard lock(state_->mutex);
  auto& shape = state_->shapes[{width, cols}];
  if (shape != nullptr) {
    return shape.get();
  }
  shape = std::make_unique<PanelShape>();
  shape->width = width;
  shape->cols = cols;
  const memory::data_type type = data_type(state_->type);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  // The layout chosen for the reference serves all: 2.6.3 chooses the same for every m.
  shape->packed = memory::desc({cols, width}, type, memory::format_tag::any);
  for (const std::int64_t rows : kTriedRows) {
    const auto description =
        make_matmul(state_->engine, row_major(rows, cols, type), shape->packed,
                    row_major(rows, width, memory::data_type::f32), attributes);
    shape->packed = description.weights_desc();
    shape->steps.emplace(rows, make_step(state_->engine, description, state_->streams.size()));
  }
  keep_agreeing(*shape);
  return shape.get();
}

// Equal rows must give equal results, wherever they lie and however many there are. Large products
// are kept where the largest agrees; elsewhere those near it are slower than several of 64 rows.
void MatmulLibrary::keep_agreeing(PanelShape& shape) const {
  const AlignedBytes plain = some_rows(shape.width, shape.cols, false, state_->type);
  const AlignedBytes a = some_rows(kProductRows, shape.cols, true, state_->type);
  AlignedBytes packed(packed_bytes(shape));
  const Panel panel = pack(&shape, 0, plain.data(), packed.data());
  AlignedBytes c(static_cast<std::size_t>(kProductRows * shape.width) * sizeof(float));
  std::vector<float> reference;
  const auto agrees = [&](std::int64_t rows) {
    multiply(0, panel, a.data(), rows, c.as<float>());
    if (reference.empty()) {
      reference.assign(c.as<float>(), c.as<float>() + shape.width);
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      if (std::memcmp(c.as<float>() + row * shape.width, reference.data(),
                      reference.size() * sizeof(float)) != 0) {
        return false;
      }
    }
    return true;
  };
  if (!agrees(kReferenceRows)) {
    throw FatalError(version() + " gives equal rows of a product of " +
                     std::to_string(shape.width) + " by " + std::to_string(shape.cols) +
                     " other bits by their place on this processor; use another version of it");
  }
  const bool large = agrees(kProductRows);
  std::erase_if(shape.steps, [&](const auto& step) {
    return (step.first > kReferenceRows && !large) || !agrees(step.first);
  });
}

std::int64_t MatmulLibrary::rows_of_product(const PanelShape& shape, std::int64_t left) {
  const auto above = shape.steps.upper_bound(left);
  const auto enough = shape.steps.lower_bound(left);
  const bool filled =
      above == shape.steps.begin() || (left <= kUncutRowsMax && enough->first <= kUncutRowsMax);
  return filled ? enough->first : std::prev(above)->first;
}

std::size_t MatmulLibrary::packed_bytes(const PanelShape& shape) { return shape.packed.get_size(); }

Panel MatmulLibrary::pack(const PanelShape* shape, std::int64_t row, const std::byte* plain,
                          std::byte* packed) const {
  // Rows of W are columns of the matrix that the product multiplies by.
  const memory::desc transposed({shape->cols, shape->width}, data_type(state_->type),
                                memory::format_tag::ba);
  const memory from(transposed, state_->engine, const_cast<std::byte*>(plain));
  const memory to(shape->packed, state_->engine, packed);
  dnnl::stream stream(state_->engine);
  dnnl::reorder(from, to).execute(stream, const_cast<memory&>(from), const_cast<memory&>(to));
  stream.wait();
  return {.row = row, .width = shape->width, .shape = shape, .packed = packed};
}

void MatmulLibrary::multiply(int member, const Panel& panel, const std::byte* a, std::int64_t m,
                             float* c) const {
  const auto i = static_cast<std::size_t>(member);
  Step& step = panel.shape->steps.at(m);
  Arguments& arguments = step.arguments[i];
  arguments.a.set_data_handle(const_cast<std::byte*>(a));
  arguments.weights.set_data_handle(const_cast<std::byte*>(panel.packed));
  arguments.c.set_data_handle(c);
  step.matmul.execute(state_->streams[i], arguments.map);
  state_->streams[i].wait();
}

std::string MatmulLibrary::version() {
  const dnnl_version_t* v = dnnl_version();
  return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
         std::to_string(v->patch);
}

}  // namespace tessera::kernels::cpu
