module attributes {dshard.mesh = #dshard.mesh<"cp"=2>} {
func.func @run(%q: tensor<1x2x8x4xf32> {dshard.dim_names = ["batch", "", "seq", ""], dshard.role = #dshard.role<input>}) -> tensor<1x2x8x4xf32> {
  %0:2 = dshard.attention %q, %q, %q {scale = 0.5 : f64, causal, path = "model.attn", part = #dshard.part<forward>} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> (tensor<1x2x8x4xf32>, tensor<1x2x8xf32>)
  return %0#0 : tensor<1x2x8x4xf32>
}
}
