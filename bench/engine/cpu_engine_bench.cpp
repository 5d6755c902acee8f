// Tokens a second of the whole encoder on the CPU, beside the time of its matrix products alone in
// the same run. Self-tests first, then medians.
//
// usage: cpu_engine_bench [--shape 0.6b | --model DIR] [--len 512] [--count 2] [--threads 0] ...

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <vector>

#include "bench/program.hpp"
#include "common/log.hpp"
#include "common/model/model_folder.hpp"
#include "common/model/synthetic_model.hpp"
#include "kernels/cpu/linear_weight.hpp"
#include "worker/create_engine.hpp"
#include "worker/engine/engine.hpp"
#include "worker/engine/self_test.hpp"

namespace tessera {
namespace {

using bench::median;
using kernels::DType;
using kernels::cpu::kProductRows;
using kernels::cpu::MatmulLibrary;
using worker::create_engine;
using worker::Engine;

struct Arguments {
  std::filesystem::path model;
  std::string shape = "0.6b";
  std::int64_t len = 512;
  std::int64_t count = 2;
  int threads = 0;
  int passes = 5;
  bool float32 = false;
};

// Wall and processor time of one thing's passes. Things are timed in turns, so that what else the
// machine does meets all of them; their ratio is then good where the times themselves are not.
struct Timing {
  std::vector<double> wall_s, processor_s;

  template <typename Run>
  void time(Run run) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t start_clock = std::clock();
    run();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    wall_s.push_back(taken.count());
    processor_s.push_back(static_cast<double>(std::clock() - start_clock) / CLOCKS_PER_SEC);
  }
  void print(const char* name, std::int64_t tokens, std::int64_t texts) const {
    const double middle = median(wall_s);
    std::printf("%-9s %8.1f tokens/s %8.1f texts/s   %.4f s median, %.4f to %.4f, processor %.4f\n",
                name, static_cast<double>(tokens) / middle, static_cast<double>(texts) / middle,
                middle, *std::ranges::min_element(wall_s), *std::ranges::max_element(wall_s),
                median(processor_s));
  }
};

// The products of one layer, run as often as the model has layers, each thread over its own rows:
// what the encoder would take if everything else were free.
class ProductsAlone {
 public:
  ProductsAlone(const ModelConfig& config, DType type, int threads)
      : layers_(config.num_hidden_layers), team_(threads), library_(type, threads) {
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t inner = config.intermediate_size;
    add(config.q_width() + 2 * config.kv_width(), hidden, type);
    add(hidden, config.q_width(), type);
    add(2 * inner, hidden, type);
    add(hidden, inner, type);
    input_.resize(static_cast<std::size_t>(threads));
    output_.resize(static_cast<std::size_t>(threads));
    const auto widest = static_cast<std::size_t>(std::max({hidden, config.q_width(), inner}));
    for (std::size_t i = 0; i < input_.size(); ++i) {
      input_[i] = kernels::cpu::AlignedBytes(kProductRows * widest * size_of(type));
      std::fill_n(input_[i].data(), input_[i].size(), std::byte{0x11});
      output_[i] = kernels::cpu::AlignedBytes(kProductRows * kernels::cpu::kPanelWidth * 4);
    }
  }

  void run(std::int64_t rows) {
    const std::int64_t share = rows / team_.members();
    const kernels::cpu::Team::Job job = [&](int member) {
      const auto m = static_cast<std::size_t>(member);
      for (std::int64_t layer = 0; layer < layers_; ++layer) {
        for (const auto& weight : weights_) {
          for (const auto& panel : weight->panels()) {
            for (std::int64_t done = 0, product = 0; done < share; done += product) {
              product = MatmulLibrary::rows_of_product(*panel.shape, share - done);
              library_.multiply(member, panel, input_[m].data(), product, output_[m].as<float>());
            }
          }
        }
      }
    };
    team_.run(job);
  }

 private:
  void add(std::int64_t rows, std::int64_t cols, DType type) {
    const std::vector<float> values(static_cast<std::size_t>(rows * cols), 0.01F);
    weights_.push_back(kernels::cpu::CpuLinearWeight::load(
        {.name = "bench",
         .slices = {{.data = reinterpret_cast<const std::byte*>(values.data()),
                     .type = DType::kFloat32,
                     .rows = rows,
                     .cols = cols,
                     .row_stride = cols}}},
        type, library_, team_));
  }

  std::int64_t layers_;
  kernels::cpu::Team team_;
  kernels::cpu::MatmulLibrary library_;
  std::vector<std::unique_ptr<kernels::cpu::CpuLinearWeight>> weights_;
  std::vector<kernels::cpu::AlignedBytes> input_, output_;
};

std::filesystem::path model_folder(const Arguments& arguments) {
  if (!arguments.model.empty()) {
    return arguments.model;
  }
  const auto folder = std::filesystem::temp_directory_path() / ("tessera-bench-" + arguments.shape);
  if (!std::filesystem::exists(folder / "config.json")) {
    std::printf("making %s\n", folder.c_str());
    make_model(folder, arguments.shape, 1);
  }
  return folder;
}

void run(const Arguments& arguments) {
  const auto folder = model_folder(arguments);
  const std::int64_t tokens = arguments.len * arguments.count;
  const DType type = arguments.float32 ? DType::kFloat32 : DType::kBFloat16;
  const auto engine = create_engine({.model_dir = folder,
                                     .threads = arguments.threads,
                                     .max_batch_tokens = std::max<std::int64_t>(tokens, 64),
                                     .max_sequences = std::max<std::int64_t>(arguments.count, 64),
                                     .weight_type = type,
                                     .measure_cost = false});
  const ModelFolder model = read_model_folder(folder).value();
  for (const auto& result : run_self_tests(*engine, model)) {
    std::printf("%s %s: %s\n", result.passed ? "ok" : "FAILED", result.what.c_str(),
                result.detail.c_str());
    if (!result.passed) {
      throw FatalError("not measured, because a self-test failed");
    }
  }
  std::vector<std::int32_t> ids, cu_seqlens = {0};
  for (std::int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<std::int32_t>(i * 7919 % engine->info().vocab_size));
  }
  for (std::int64_t i = 1; i <= arguments.count; ++i) {
    cu_seqlens.push_back(static_cast<std::int32_t>(i * arguments.len));
  }
  const auto pass = [&] {
    engine->enqueue(0, {.input_ids = ids, .cu_seqlens = cu_seqlens, .segments = {}});
    engine->wait(0);
  };
  std::printf("%s, %ld sequences of %ld tokens\n", engine->info().device.c_str(), arguments.count,
              arguments.len);
  const int threads = arguments.threads > 0 ? arguments.threads
                                            : static_cast<int>(std::thread::hardware_concurrency());
  ProductsAlone products(model.config, type, threads);
  pass();
  products.run(tokens);
  Timing encoder, alone;
  for (int i = 0; i < arguments.passes; ++i) {
    encoder.time(pass);
    alone.time([&] { products.run(tokens); });
  }
  encoder.print("encoder", tokens, arguments.count);
  alone.print("products", tokens, arguments.count);
  const double flops = 2.0 * static_cast<double>(model.config.linear_parameters_per_layer() *
                                                 model.config.num_hidden_layers * tokens);
  std::printf(
      "products alone: %.1f GFLOP/s; their share of the encoder's time: %.3f of wall, "
      "%.3f of processor\n",
      flops / median(alone.wall_s) / 1e9, median(alone.wall_s) / median(encoder.wall_s),
      median(alone.processor_s) / median(encoder.processor_s));
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::Arguments arguments;
  CLI::App app{"Encoder on the CPU: tokens a second beside its matrix products alone."};
  app.add_option("--model", arguments.model, "Hugging Face folder; default: make --shape");
  app.add_option("--shape", arguments.shape, "tiny, 0.6b, 4b or 8b")->capture_default_str();
  app.add_option("--len", arguments.len, "Tokens of a sequence")->capture_default_str();
  app.add_option("--count", arguments.count, "Sequences of a batch")->capture_default_str();
  app.add_option("--threads", arguments.threads, "0: all cores")->capture_default_str();
  app.add_option("--passes", arguments.passes, "Timed passes")->capture_default_str();
  app.add_flag("--float32", arguments.float32, "Compute in float32");
  CLI11_PARSE(app, argc, argv);
  try {
    tessera::log::init("bench", "warn");
    tessera::run(arguments);
    return 0;
  } catch (const tessera::FatalError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
