#include "worker/link/options.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>

#include "common/log.hpp"

namespace tessera::worker {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "worker";
}

void add_engine_options(CLI::App& app, EngineOptions& engine) {
  app.add_option("--model", engine.model_dir, "Hugging Face folder of the model")->required();
  app.add_option("--device", engine.device, "cpu, or cuda:N")->capture_default_str();
  app.add_option("--devices", engine.devices,
                 "GPUs of one group that holds one model: all, or numbers such as 0,1");
  app.add_option("--tp", engine.tp, "Size of the group: auto, 1, 2, 4 or 8")->capture_default_str();
  app.add_option_function<std::string>(
         "--split",
         [&engine](const std::string& name) {
           if (name != "auto") {
             engine.split = name == "weights" ? GroupSplit::kTensor : GroupSplit::kTokens;
           }
         },
         "What a group splits: weights (tensor parallel), tokens (every GPU holds all weights), "
         "or auto")
      ->check(CLI::IsMember({"auto", "weights", "tokens"}))
      ->default_str("auto");
  app.add_option_function<std::string>(
         "--transport",
         [&engine](const std::string& name) {
           using kernels::Transport;
           engine.transport = name == "peer"   ? Transport::kPeer
                              : name == "nccl" ? Transport::kNccl
                                               : Transport::kAuto;
         },
         "How the GPUs of a group exchange: peer memory, nccl, or auto")
      ->check(CLI::IsMember({"auto", "peer", "nccl"}))
      ->default_str("auto");
  // A flag that sets the enum: CLI11 would print an enum's number, not its name.
  app.add_option_function<std::string>(
         "--dtype",
         [&engine](const std::string& name) {
           engine.weight_type =
               name == "float32" ? kernels::DType::kFloat32 : kernels::DType::kBFloat16;
         },
         "Type of weights and activations: bfloat16 or float32")
      ->check(CLI::IsMember({"bfloat16", "float32"}))
      ->default_str("bfloat16");
  app.add_flag("--rehash", engine.rehash,
               "Hash all of the weights for the fingerprint, whatever is remembered of an earlier "
               "start");
  app.add_option("--threads", engine.threads, "CPU threads; 0 takes all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--max-batch-tokens", engine.max_batch_tokens,
                 "Tokens of one batch; 0 picks from the device's memory")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--mem-fraction", engine.mem_fraction,
                 "Of the device's free memory the most that is taken; where it does not hold "
                 "batches of the usual size they are made smaller")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  app.add_option("--max-batch-sequences", engine.max_sequences, "Texts of one batch; 0 picks")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--max-seqlen", engine.max_seqlen,
                 "Tokens of the longest text; 0 takes the model's limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

}  // namespace

WorkerOptions parse_worker_options(int argc, char** argv) {
  WorkerOptions options;
  CLI::App app{
      "Tessera worker: loads one model on one device group and embeds what the coordinator "
      "sends.",
      "tessera-worker"};
  app.footer(
      "Example:\n  tessera-worker --model deploy/data/demo-model --threads 2\n"
      "  tessera-worker --model Qwen3-Embedding-4B --device cuda:0 "
      "--coordinator tcp://10.0.0.5:7401\n"
      "  tessera-worker --model Qwen3-Embedding-8B --devices all --tp auto");
  app.set_config("--config", "", "File with any of these options, as name=value lines (TOML)");
  app.add_option("--coordinator", options.coordinator, "Where the coordinator listens for workers")
      ->capture_default_str();
  add_engine_options(app, options.engine);
  app.add_option("--name", options.name, "Name in logs and in `tessera status`");
  app.add_option("--model-name", options.model_name,
                 "Name under which clients ask for the model; default: the folder's name");
  app.add_option("--prefer-seqlen-min", options.preferred_seqlen_min,
                 "Shortest text that this worker is meant for, in tokens")
      ->capture_default_str();
  app.add_option("--prefer-seqlen-max", options.preferred_seqlen_max,
                 "Longest text that this worker is meant for, in tokens; 0: no preference")
      ->capture_default_str();
  app.add_option("--drain-s", options.drain_s, "Longest wait for running batches at SIGTERM")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option(
         "--batch-timeout-s", options.batch_timeout_s,
         "A batch that computes for longer, and 5 times its predicted time, is a hung device")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--verify", options.verify,
               "Load the model, run the self-tests, print them and end; no coordinator is needed");
  app.add_option("--log-level", options.log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_flag("--log-json", options.log_json, "Logs as JSON, one object a line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  log::init("worker", options.log_level, options.log_json ? log::Form::kJson : log::Form::kText);
  log::info("options\n{}", app.config_to_str(true, false));
  if (options.name.empty()) {
    const EngineOptions& engine = options.engine;
    options.name =
        host_name() + "/" + (engine.devices.empty() ? engine.device : "cuda:" + engine.devices);
  }
  return options;
}

}  // namespace tessera::worker
