from $module import ${Part}Config

loss = ${Part}Config(sharpness=2, weight=0.5).build()
