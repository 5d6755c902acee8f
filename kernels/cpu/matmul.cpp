#include "kernels/cpu/matmul.hpp"

#include <array>
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

constexpr std::size_t kSteps = static_cast<std::size_t>(kProductRows / kRowStep) + 1;

// Index 0: 8 rows; index i: i * kRowStep rows.
std::int64_t rows_of(std::size_t step) {
  return step == 0 ? 8 : static_cast<std::int64_t>(step) * kRowStep;
}

std::size_t step_of(std::int64_t rows) {
  CHECK(rows == 8 || (rows % kRowStep == 0 && rows > 0 && rows <= kProductRows));
  return rows == 8 ? 0 : static_cast<std::size_t>(rows / kRowStep);
}

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
  mutable std::array<Step, kSteps> steps;  // a member changes its own arguments only
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
  // The layout chosen for the most rows serves all: 2.6.3 chooses the same for every m.
  shape->packed = memory::desc({cols, width}, type, memory::format_tag::any);
  for (std::size_t step = kSteps; step-- > 0;) {
    const std::int64_t rows = rows_of(step);
    const auto description =
        make_matmul(state_->engine, row_major(rows, cols, type), shape->packed,
                    row_major(rows, width, memory::data_type::f32), attributes);
    shape->packed = description.weights_desc();
    shape->steps[step] = make_step(state_->engine, description, state_->streams.size());
  }
  return shape.get();
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
  Step& step = panel.shape->steps[step_of(m)];
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
